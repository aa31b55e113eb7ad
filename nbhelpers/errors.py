"""The study's named errors: each says what was expected, what was found, and what to do next."""


class StudyError(Exception):
    """Base of all errors that the user can fix; scripts print the message alone and exit with 2."""


def named_errors() -> set[str]:
    """Names of all the study's error classes, including classes derived from other errors."""
    waiting: list[type[StudyError]] = [StudyError]
    names = set()
    while waiting:
        kind = waiting.pop()
        names.add(kind.__name__)
        waiting += kind.__subclasses__()
    return names


class ConfigError(StudyError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(StudyError):
    """An image, a mask, a folder or a split is missing or damaged, or contradicts another one."""


class ModelError(StudyError):
    """A network, its weights or a stored detector is not available or does not fit."""


class DivergenceError(ModelError):
    """The loss of a training, or its gradient, is no longer finite."""


class ResourceError(StudyError):
    """The machine lacks memory, disk space or permission for what was asked."""
