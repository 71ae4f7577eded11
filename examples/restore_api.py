"""Fill a gap from Python: python examples/restore_api.py DAMAGED RESTORED START END (in seconds)."""

from __future__ import annotations

import sys

from dapcli import TASKS, read_audio, restore
from dapcli.signal.gaps import make_gaps, parse_gap
from dapcli.signal.missing import Missing

if __name__ == "__main__":
    damaged = read_audio(sys.argv[1])
    gaps, _ = make_gaps([parse_gap(f"{sys.argv[3]}:{sys.argv[4]}", damaged.rate)], damaged)
    result = restore(damaged, Missing(gaps), TASKS["inpaint"].presets["fast"])
    result.save(sys.argv[2])
