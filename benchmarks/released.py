"""The code that the Design paper's authors released, imported from a clone of it: nothing of it is in this repository.

git clone https://github.com/vivsivaraman/designaudiopriors
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dapcli.priors.network import PriorNetwork
from dapcli.priors.unet import ConvBlock, UNet
from dapcli.signal.stft import STFT
from dapcli.tasks import speed

RATE = 16_000
HOP = 64
#: The transform that the released script means to use; it takes 1023 forward and 1022 back, which costs it up to 20 dB.
TRANSFORM = STFT(1022, HOP)
#: Its network returns fewer frames than it is given unless their number is a multiple of this.
FRAME_STEP = 4


def whole_length(length: int) -> int:
    """The most samples, ``length`` at the most, whose frames the released network returns all."""
    return ((length // HOP + 1) // FRAME_STEP * FRAME_STEP - 1) * HOP


class Released:
    """The released network with exponential dilations, and its script's Adam and decay of the learning rate."""

    def __init__(self, clone: Path, seed: int) -> None:
        if not (clone / "models" / "DDUnet" / "ddunet.py").is_file():
            raise SystemExit(f"{clone}: not a clone of vivsivaraman/designaudiopriors (no models/DDUnet/ddunet.py)")
        sys.path.insert(0, str(clone))
        try:
            module = importlib.import_module("models.DDUnet.ddunet")
        finally:
            sys.path.remove(str(clone))
        torch.manual_seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            self.network: nn.Module = module.DDUNet(SimpleNamespace(dilation_type="exp"))
        self.network.train()
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self._scheduler = torch.optim.lr_scheduler.StepLR(self._optimizer, step_size=500, gamma=0.1)

    def step(self, z: Tensor, target: Tensor) -> float:
        """One iteration on ``[1, 2, F, T]``; returns its loss."""
        loss = nn.functional.mse_loss(self.network(z), target)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._scheduler.step()
        return loss.item()

    def copy_weights(self, prior: PriorNetwork) -> None:
        """Give dap's ``ddunet`` prior the weights of this network.

        Both define, or here list, their convolutions in the order in which they run, and concatenate alike.
        """
        theirs = [module for module in self.network.modules() if isinstance(module, nn.Conv2d)]
        with torch.no_grad():
            for source, target in zip(theirs, convolutions(prior), strict=True):
                # Its head has one weight per channel and a dilation that does nothing.
                dilated = source.kernel_size != (1, 1) and source.dilation != target.dilation
                if source.weight.shape != target.weight.shape or dilated:
                    raise SystemExit(f"the networks differ: {source} there, {target} here")
                target.load_state_dict(source.state_dict())


def convolutions(prior: PriorNetwork) -> list[nn.Conv2d]:
    """The convolutions of dap's network in the order in which they run."""
    assert isinstance(prior, UNet)
    modules: list[nn.Module | None] = [*prior.down]
    for upsample, block in zip(prior.upsample, prior.up, strict=True):
        modules += [upsample, block]
    found: list[nn.Module | None] = []
    for module in [*modules, prior.head]:
        found += [*module.convolutions, module.transition] if isinstance(module, ConvBlock) else [module]
    return [module for module in found if isinstance(module, nn.Conv2d)]


def describe_machine() -> str:
    """Processor, bfloat16, threads and torch, without which a figure in seconds means nothing."""
    capabilities = torch.cpu.get_capabilities()
    native = "AVX-512 with bfloat16" if capabilities.get("avx512_bf16", False) else "no bfloat16"
    kind = "AMX" if capabilities.get("amx_bf16", False) else native
    name = speed.describe_machine()["processor"]
    return f"{name}, {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}"
