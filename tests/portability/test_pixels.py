"""The drawn set, its shifted twins and both as a network sees them are the same pixels on every
processor.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("pixels.py")

#: Environments in which a library computes as it does on a processor with fewer instructions.
PROCESSORS = {
    "this one": {},
    "one without AVX": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "OPENCV_CPU_DISABLE": "AVX2,AVX,FP16,AVX512F",
        "OPENCV_IPP": "disabled",
        "NPY_DISABLE_CPU_FEATURES": "AVX2,FMA3",
    },
}


@pytest.mark.parametrize("environment", PROCESSORS.values(), ids=PROCESSORS)
def test_pixels_are_those_of_the_list(environment):
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found, listed = json.loads(run.stdout), json.loads(SCRIPT.with_suffix(".json").read_text())
    assert found.keys() == listed.keys()
    assert [name for name in listed if found[name] != listed[name]] == []
