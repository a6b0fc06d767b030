"""Where the paths of a run lead, and in what it differs from what is asked."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.base import ConfigError, RunError
from nas.data import spec_at
from nas.latency import with_kept_profiles
from nas.runs import RunDirectory, config_of_run, space_of_run
from nas.settings import RunConfig, config_differences, flat_config, located, same_places
from nas.space import SearchSpace


def typed_folders(run: RunDirectory) -> tuple[Path, ...]:
    """From where relative paths of a run's configuration start, best first.

    Of a run of the first versions, which does not say it, the folder of now and those above the run.
    """
    run = knowing_run(run)
    here, kept = run.path.resolve(), run.manifest.folders
    return (Path.cwd(), *here.parents) if kept is None else tuple(here / folder for folder in kept)


def knowing_run(run: RunDirectory) -> RunDirectory:
    """The run that knows where paths lead: of a supernet trial the one that it belongs to, if it is there."""
    if run.manifest.supernet_trial is not None:
        with suppress(RunError):
            return RunDirectory.open(run.path.resolve().parent.parent)
    return run


def found_spec(run: RunDirectory, config: RunConfig) -> str:
    """The data spec of a run, from where its relative paths lead to something.

    The run's own folders come first; of a run of the first versions, which has none, the folder of now and those above
    the run. Another's images are seen by the hashes of their splits.
    """
    run = knowing_run(run)
    place, spec = run.manifest.images, config.data.spec
    folders: Sequence[Path] = typed_folders(run)
    if place is not None:
        folders, spec = [run.path.resolve() / folder for folder in place.folders], place.spec
    return next((found for folder in folders if (found := spec_at(spec, folder)) is not None), spec)


def differences(
    run: RunDirectory, asked: RunConfig | None, identity: dict[str, Any], space: SearchSpace | None = None
) -> list[str]:
    """Where a run is not what is asked; without a configuration, what it is of alone counts.

    Of another space the keys are named, too, where it is given.
    """
    manifest = run.manifest
    try:
        found = [] if asked is None else _config_differences(run, config_of_run(run), asked)
    except ConfigError as error:
        return [error.message]
    for key, value in identity.items():
        kept = getattr(manifest, key)
        if key == "splits":
            names = [name for name in {**kept, **value} if kept.get(name) != value.get(name)]
            found += [f"{name} split: {kept.get(name)} in the run, {value.get(name)} now" for name in names]
        elif kept != value:
            found.append(f"{key}: {kept} in the run, {value} now")
            found += space_differences(space_of_run(run), space) if key == "space_digest" and space else []
    return found


def space_differences(before: SearchSpace, now: SearchSpace) -> list[str]:
    """Where two spaces differ, such as `constraints.max_macs: null in the run, 2000000.0 asked`.

    A gene that is the same in all layers of each is one line.
    """
    values, layers = [before.to_dict(), now.to_dict()], [before.to_dict()["layers"], now.to_dict()["layers"]]
    for space, domains in zip(values, layers, strict=True):
        genes = dict.fromkeys(gene for of_one in layers for domain in of_one for gene in domain)
        alike = [g for g in genes if all(domain.get(g) == of_one[0].get(g) for of_one in layers for domain in of_one)]
        space["layers"] = {gene: domains[0][gene] for gene in alike if gene in domains[0]} | {
            str(i): {gene: choices for gene, choices in domain.items() if gene not in alike}
            for i, domain in enumerate(domains)
        }
    return config_differences(*values)


def _config_differences(run: RunDirectory, before: RunConfig, asked: RunConfig) -> list[str]:
    folders, owner = typed_folders(run), knowing_run(run)
    located_here = located(asked, (Path.cwd(), *folders))
    both = (
        with_kept_profiles(owner, located(before, folders)),
        with_kept_profiles(owner, located_here, only_missing=True),
    )
    ours, other = (flat_config(each.model_dump(mode="json")) for each in both)
    found = config_differences(ours, same_places(ours, other))
    if before.data.carved_search == asked.data.carved_search:
        # null says as much as its number, and what was made of either is in the hashes below
        found = [line for line in found if not line.startswith("data.search_fraction:")]
    return [line for line in found if not line.startswith("data.spec:")]  # the hashes say whether it is the same
