"""What the pages have in common: how they look, how they play, and how they write values."""

from __future__ import annotations

import html

STYLE = """\
:root { color-scheme: light dark; --ground: #fff; --card: #f4f5f7; --ink: #1b1d21; --soft: #565b64; --line: #d5d8dd; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14161a; --card: #1d2025; --ink: #e7e9ec; --soft: #a3a9b3; --line: #383d45; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { margin: 0 0 .75rem; font-size: 1.5rem; line-height: 1.25; }
h2 { margin: 0 0 .5rem; font-size: 1.15rem; }
p { margin: 0 0 .6rem; max-width: 48rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1rem;
  align-items: start; margin: 1rem 0; }
figure, section, details { margin: 0; padding: 1rem; background: var(--card); border-radius: .6rem; }
section figure { padding: 0; }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; }
figcaption b { margin-right: .4rem; color: var(--ink); font-size: 1.15rem; }
audio { display: block; width: 100%; margin: .5rem 0; }
svg { display: block; width: 100%; height: auto; max-width: 40rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .5rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; font-weight: normal; }
thead th { font-weight: 600; }
td { overflow-wrap: anywhere; }
.numbers :is(td, th + th) { text-align: right; white-space: nowrap; }
ul { margin: 0; padding-left: 1.2rem; }
summary { cursor: pointer; font-weight: 600; }
"""

ONE_PLAYER = """\
// One player at a time; switching while one plays goes on where that one was, to compare the same moment.
const players = document.querySelectorAll("audio");
for (const player of players)
  player.addEventListener("play", () => {
    for (const other of players)
      if (other !== player && !other.paused) {
        player.currentTime = other.currentTime;
        other.pause();
      }
  });
"""


def text(value: object) -> str:
    """Any value as HTML text; bytes of a file name that are not UTF-8 become question marks."""
    text = "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return html.escape(text.encode(errors="replace").decode())
