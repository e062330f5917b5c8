"""The tasks of several data sets together: which classes there are, and which data set is annotated for which."""

from collections.abc import Sequence

from dataloaders.description import ClassSpec, DatasetSpec
from dataloaders.samples import Task
from util.errors import ConfigError


def join_tasks(specs: Sequence[DatasetSpec], wanted: Sequence[str] = ()) -> tuple[Task, ...]:
    """The tasks that some of the data sets are annotated for, in the order of their first appearance.

    A task may have some of its classes in one data set and all of them in another, such as the disc in one, disc and
    cup in another. Its classes are in the order of the data set that has most of them.

    Args:
        specs: of the data sets.
        wanted: names of tasks; empty: all.

    Raises:
        ConfigError: a wanted task that no data set is annotated for, a class that is in two tasks, or a task whose
            relation or order of classes differs between data sets.
    """
    whole: dict[str, tuple[Task, DatasetSpec]] = {}
    for spec in specs:
        for task in spec.given_tasks:
            if task.name not in whole or len(task.classes) > len(whole[task.name][0].classes):
                whole[task.name] = task, spec
    for spec in specs:
        for task in spec.given_tasks:
            _require_part(task, spec, *whole[task.name])
    _require_separate(whole)
    unknown = [name for name in wanted if name not in whole]
    if unknown:
        known = "; ".join(f"{spec.name}: {', '.join(task.name for task in spec.given_tasks)}" for spec in specs)
        raise ConfigError(f"tasks: no data set is annotated for {unknown[0]!r}; expected some of ({known}).")
    return tuple(task for task, _ in whole.values() if not wanted or task.name in wanted)


def _require_part(task: Task, spec: DatasetSpec, whole: Task, other: DatasetSpec) -> None:
    """Checks that a task has classes of the same task elsewhere, in the same order and relation."""
    kept = tuple(name for name in whole.classes if name in task.classes)
    if kept != task.classes:
        raise ConfigError(
            f"task {task.name!r}: classes {', '.join(task.classes)} in {spec.name}, but {', '.join(whole.classes)} in "
            f"{other.name}; expected some of the latter in their order. Correct `tasks` of a description."
        )
    if len(task.classes) > 1 and task.relation != whole.relation:
        raise ConfigError(
            f"task {task.name!r}: {task.relation} in {spec.name}, but {whole.relation} in {other.name}; expected the "
            "same relation. Correct `tasks` of a description."
        )


def _require_separate(whole: dict[str, tuple[Task, DatasetSpec]]) -> None:
    owner: dict[str, str] = {}
    for name, (task, spec) in whole.items():
        for each in task.classes:
            other = owner.setdefault(each, name)
            if other != name:
                raise ConfigError(
                    f"class {each!r}: in task {other!r}, and in task {name!r} of {spec.name}; expected the same task "
                    "in all data sets. Correct `tasks` of a description, or rename the class."
                )


def channels_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The classes of all tasks in the order of the channels."""
    return tuple(name for task in tasks for name in task.classes)


def known_channels(spec: DatasetSpec, tasks: Sequence[Task]) -> tuple[int, ...]:
    """The channels that a data set is annotated for, ascending."""
    own = {each.name for each in spec.classes}
    return tuple(number for number, name in enumerate(channels_of(tasks)) if name in own)


def known_task_numbers(known: Sequence[int], tasks: Sequence[Task]) -> tuple[int, ...]:
    """The numbers of the tasks of which a channel is known."""
    owner = [number for number, task in enumerate(tasks) for _ in task.classes]
    return tuple(dict.fromkeys(owner[channel] for channel in known))


def join_specs(specs: Sequence[DatasetSpec], tasks: Sequence[Task]) -> DatasetSpec:
    """One description of several data sets: their names, the classes of the tasks, grid and intensities of the first.

    Raises:
        ConfigError: they are of different kinds, or their images have different numbers of channels.
    """
    first = specs[0]
    other = next((spec for spec in specs if (spec.kind, spec.channels) != (first.kind, first.channels)), None)
    if other is not None:
        raise ConfigError(
            f"datasets: {first.name} holds {first.kind} of {first.channels} channel(s), {other.name} {other.kind} of "
            f"{other.channels}; expected the same in all. Correct `channels` of a description and prepare that set "
            "again, or leave one out."
        )
    classes: dict[str, ClassSpec] = {}
    for spec in specs:
        for each in spec.classes:
            classes.setdefault(each.name, ClassSpec(each.name, each.title))
    return DatasetSpec(
        name="+".join(spec.name for spec in specs),
        kind=first.kind,
        modality=first.modality,
        channels=first.channels,
        classes=tuple(classes[name] for name in channels_of(tasks)),
        tasks=tuple(tasks),
        grid=first.grid,
        intensity=first.intensity,
    )
