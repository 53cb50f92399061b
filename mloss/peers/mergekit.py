"""`python -m mloss.peers.mergekit CONFIG OUT`: mergekit-yaml that knows M-TIES.

mergekit's own command imports no methods but its own. Everything else, options and
configuration, is mergekit's.
"""

import sys
from collections.abc import Sequence

_NAME = "mloss.peers.mergekit"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mergekit-yaml with the method `m_ties`; return the exit status.

    2 with one line on standard error where mergekit is not installed and where input
    is bad.
    """
    try:
        from click import ClickException
        from mergekit.scripts import run_yaml

        from mloss.peers import mergekit_method
    except ImportError as error:
        return _refused(f"{error}: pip install 'mloss[mergekit]'")
    command = run_yaml.main.main
    try:
        with mergekit_method.every_rate_met():
            command(arguments, prog_name=f"python -m {_NAME}", standalone_mode=False)
    except ClickException as error:
        error.show()
        return error.exit_code
    except (OSError, ValueError) as error:
        return _refused(str(error))
    return 0


def _refused(reason: str) -> int:
    print(f"{_NAME}: {' '.join(reason.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
