"""The study's named errors: each says what was expected, what was found, and what to do next."""


class StudyError(Exception):
    """Base of all errors a user can mend; scripts print the message alone and exit with code 2."""


def named_errors() -> set[str]:
    """Names of all of the study's errors, those derived from others too."""
    waiting, names = [StudyError], set()
    while waiting:
        kind = waiting.pop()
        names.add(kind.__name__)
        waiting += kind.__subclasses__()
    return names


class ConfigError(StudyError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(StudyError):
    """An image, a mask, a folder or a split is missing, damaged or contradicts another."""


class ModelError(StudyError):
    """A network, its weights or a stored detector cannot be had or does not fit."""


class DivergenceError(ModelError):
    """A training's loss, or its gradient, is not finite any more."""


class ResourceError(StudyError):
    """The machine lacks memory, disk space or permission for what was asked."""
