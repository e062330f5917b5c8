"""Which scans are labelled, unlabelled and tested: whole domains are held out, and patients are never divided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from dataloaders.samples import Origin
from dataloaders.sources.config import ALL_DOMAINS, SourcesDataConfig
from util.errors import DataError
from util.ids import natural_key


@dataclass(frozen=True)
class SourceScan:
    """What is known of a prepared scan of one or several frames, without opening it.

    Attributes:
        id: of the scan.
        origin: with patient and domain.
        phases: annotated frame, counted from 0 -> its phase; empty: not annotated.
        n_frames: frames, stacked along z.
    """

    id: str
    origin: Origin
    phases: Mapping[int, str]
    n_frames: int = 1


@dataclass(frozen=True)
class Division:
    """The scans of a run; those of `test` share no domain, and those of `development` no patient, with the others."""

    sources: tuple[str, ...]  # domains
    labelled: tuple[str, ...]  # scans whose labels are trained on
    unlabelled: tuple[str, ...]  # all scans of the sources that are trained on, with or without labels
    development: tuple[str, ...]  # labelled scans for training curves
    test: tuple[str, ...]  # labelled scans of the tested domains
    patients: Mapping[str, tuple[str, ...]]  # centre -> the patients whose labels are trained on


def divide(scans: Sequence[SourceScan], config: SourcesDataConfig, name: str) -> Division:
    """Divides the scans of a data set.

    Args:
        scans: all of them.
        config: the domains, and how labelled patients are selected.
        name: of the data set, for messages.

    Raises:
        DataError: an unknown domain, no source, or a domain without labelled patient.

    Source: CACPS, released code: leave-one-domain-out, labelled patients by centre.
    """
    domains = sorted({scan.origin.domain for scan in scans})
    if "" in domains:
        lacking = next(scan.id for scan in scans if not scan.origin.domain)
        raise DataError(
            f"{name}: scan {lacking} has no domain; expected one for every scan, in the column domain of the table of "
            "files. Add it and prepare again."
        )
    is_all = config.test_domains == ALL_DOMAINS
    for key, wanted in (
        ("test_domains", () if is_all else config.test_domains),
        ("train_domains", config.train_domains),
    ):
        unknown = sorted(set(wanted) - set(domains))
        if unknown:
            raise DataError(f"{name}: {key} has {unknown[0]!r}; expected some of {', '.join(domains)}.")
    tested = domains if is_all else list(config.test_domains)
    sources = tuple(each for each in domains if each not in tested and each in (config.train_domains or domains))
    test = tuple(scan.id for scan in scans if scan.origin.domain in tested and scan.phases)
    if is_all:
        return Division((), (), (), (), test, {})
    if not sources:
        raise DataError(f"{name}: test_domains names every domain ({', '.join(domains)}); none is left to train on.")
    patients = _select(scans, sources, config, name)
    kept = _development(scans, patients, config)
    chosen = {each for group in patients.values() for each in group} - kept
    inside = [scan for scan in scans if scan.origin.domain in sources]
    return Division(
        sources=sources,
        labelled=tuple(scan.id for scan in inside if scan.phases and scan.origin.patient in chosen),
        unlabelled=tuple(scan.id for scan in inside if scan.origin.patient not in kept),
        development=tuple(scan.id for scan in inside if scan.phases and scan.origin.patient in kept),
        test=test,
        patients={group: tuple(p for p in members if p not in kept) for group, members in patients.items()},
    )


def n_selected(n_patients: int, fraction: float, selection: str) -> int:
    """How many of a group's patients are labelled.

    Source: CACPS, released code (legacy): one more than the fraction asks for.
    """
    wanted = ceil(round(n_patients * fraction, 9)) + (selection == "legacy")
    return min(max(wanted, 1), n_patients)


def _select(
    scans: Sequence[SourceScan], sources: Sequence[str], config: SourcesDataConfig, name: str
) -> dict[str, tuple[str, ...]]:
    """Group -> its selected patients; a group is a centre, or under the generic protocol all sources together."""
    groups: dict[str, set[str]] = {}
    for scan in scans:
        if scan.origin.domain in sources and scan.phases:
            centre = " ".join(filter(None, (scan.origin.domain, scan.origin.centre)))
            group = "all sources" if config.protocol == "generic" else centre
            groups.setdefault(group, set()).add(scan.origin.patient)
    labelled = {scan.origin.domain for scan in scans if scan.phases}
    without = [domain for domain in sources if domain not in labelled]
    if without and config.protocol == "epl":
        raise DataError(
            f"{name}: the source domain {without[0]} has no labelled patient; expected one or more in each. Name other "
            "sources with train_domains, or add labels and prepare again."
        )
    if not groups:
        raise DataError(f"{name}: no source domain ({', '.join(sources)}) has a labelled patient. Add labels.")
    rng = np.random.default_rng(config.selection_seed)
    chosen = {}
    for group in sorted(groups):
        members = sorted(groups[group], key=natural_key)
        rule = "ceil" if config.protocol == "generic" else config.selection
        number = n_selected(len(members), config.labelled_fraction, rule)
        if config.selection == "random" or config.protocol == "generic":
            members = sorted(rng.permutation(members)[:number].tolist(), key=natural_key)
        chosen[group] = tuple(members[:number])
    return chosen


def _development(
    scans: Sequence[SourceScan], patients: Mapping[str, Sequence[str]], config: SourcesDataConfig
) -> set[str]:
    """The last labelled patients of each domain, as many as asked for; one or more stay to train on."""
    domain_of = {scan.origin.patient: scan.origin.domain for scan in scans}
    by_domain: dict[str, list[str]] = {}
    for members in patients.values():
        for patient in members:
            by_domain.setdefault(domain_of[patient], []).append(patient)
    number = config.development_patients
    return {patient for members in by_domain.values() if number for patient in members[1:][-number:]}
