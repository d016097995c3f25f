import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from onnx_classifiers import NETS, made


@pytest.fixture(params=NETS)
def net(request):
    """Each of the small classifiers: its name, the module, and the file's own input without the batch."""
    return request.param, made(request.param), NETS[request.param][1]
