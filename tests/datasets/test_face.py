"""What `import vipack.datasets` gives and what it leaves alone."""

import subprocess
import sys

import vipack.datasets


def test_every_public_name_is_there():
    for name in vipack.datasets.__all__:
        assert callable(getattr(vipack.datasets, name))


def test_importing_it_imports_neither_torch_nor_the_extras():
    code = "import sys, vipack.datasets; print({'torch', 'pyro', 'sklearn', 'pooch', 'requests'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
