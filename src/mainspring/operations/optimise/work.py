"""Measurement of a version's variants: made, judged, and their cost taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.operations.optimise.bundling import with_model
from mainspring.operations.optimise.measuring import costs
from mainspring.operations.optimise.model import PARENT, VariantReport
from mainspring.operations.optimise.subject import Progress, Subject, Wish
from mainspring.project import Project
from mainspring.registry.bundles import MODEL
from mainspring.registry.model import Bundle
from mainspring.registry.providers import provider_of, with_provider
from mainspring.training.optimise.fine_tuning import PRUNED
from mainspring.training.optimise.variants import KINDS, PROVIDED, Variant, kinds_for, on_providers, variants

CONVERTED = "onnx"  # name of the variant of a native model that is its own conversion
_ROUNDING = 1e-6  # of sums in FP32, whose order may follow the shape
_HOW_PARENT, _HOW_CONVERTED = "the version itself", "trees of the library as an ONNX graph"


class Work:
    """Measurement of one version's variants.

    Args:
        parent: The version.
        base: The same in ONNX.
        providers: Execution providers that ONNX Runtime has here.
    """

    def __init__(
        self, project: Project, parent: Bundle, base: Bundle, subject: Subject, wish: Wish, providers: tuple[str, ...]
    ) -> None:
        self._project, self._parent, self._base = project, parent, base
        self._subject, self._wish, self._providers = subject, wish, providers

    def measured(self, tell: Progress) -> tuple[list[VariantReport], dict[str, Bundle]]:
        """Return the reports of the parent and its variants, and the variants' bundles, not yet sealed."""
        made = list(self._variants(tell))
        bundles = {
            each.name: with_provider(with_model(self._base, each.content), each.provider)
            for each in made
            if each.content
        }
        if self._base is not self._parent and self._wish.wants(CONVERTED) and self._wish.target != "cuda":
            made.insert(0, Variant(CONVERTED, _HOW_CONVERTED, self._base.files[MODEL]))
            bundles[CONVERTED] = with_model(self._base, self._base.files[MODEL])
        bundles = {PARENT: self._parent, **bundles}
        reports: dict[str, VariantReport] = {}
        limit = 0.0
        own = Variant(PARENT, f"{_HOW_PARENT}, on the processor" if self._wish.target == "cuda" else _HOW_PARENT)
        for number, each in enumerate((own, *made)):
            tell(f"judge {each.name}", 0.3 + 0.3 * number / (len(made) + 1))
            try:
                report = self._report(each, bundles.get(each.name), limit)
            except MainspringError as error:
                if each.name == PARENT:
                    raise
                bundles.pop(each.name)
                report = VariantReport(name=each.name, how=each.how, why_not=error.what, provider=each.provider)
            reports[each.name] = report
            limit = report.apart or 0.0 if each.name == PARENT else limit
        tell("measure the cost", 0.6)
        known, failed = costs(self._project, bundles, self._wish)
        for name, why in failed.items():
            reports[name] = msgspec.structs.replace(reports[name], why_not=why)
        return [msgspec.structs.replace(each, cost=known.get(name)) for name, each in reports.items()], bundles

    def _variants(self, tell: Progress) -> Iterator[Variant]:
        wish, content = self._wish, self._base.files[MODEL]
        yield from on_providers(content, wish.target, wish.only, self._providers)
        if wish.target == "cuda":
            for each in sorted(set(wish.only) - set(PROVIDED)):
                yield Variant(each, "", why_not=f"It runs on the processor; for cuda there are {', '.join(PROVIDED)}.")
            return
        fitting = kinds_for(content)
        names = tuple(each for each in fitting if wish.wants(each))
        for each in KINDS:
            if each in wish.only and each not in fitting:
                other = f"It does not suit this model, which can have {', '.join(fitting)}."
                yield Variant(each, KINDS[each].how, why_not=other)
        for number, made in enumerate(variants(content, names, self._subject.calibration)):
            tell(f"made {made.name}", 0.3 * (number + 1) / len(names))
            yield made
        yield from self._subject.trained(wish, tell)

    def _report(self, each: Variant, bundle: Bundle | None, limit: float) -> VariantReport:
        """Return the report of a variant, without its cost.

        Args:
            limit: How far a row's answers of the parent are apart, alone and in batches.
        """
        if bundle is None:
            return VariantReport(name=each.name, how=each.how, why_not=each.why_not, provider=each.provider)
        differs = self._subject.apart(bundle)  # the first that loads it
        if each.name == PARENT:
            limit = differs
        elif provider_of(bundle.manifest):  # other kernels for other shapes: rounding is theirs
            limit = max(limit, self._parent.manifest.tolerance)
        else:
            limit = max(limit, _ROUNDING)
        why = ""
        if differs > limit:
            why = f"a row's answer alone differs by {differs:.2g} from its answer in a batch."
        judged = self._subject.judged(bundle)
        return VariantReport(
            name=each.name,
            how=each.how,
            why_not=why,
            quality=judged.quality,
            apart=differs,
            worst=judged.worst,
            gates_failed=judged.gates_failed,
            provider=each.provider,
            kept=each.kept,
            cosine=judged.cosine,
        )


def names_known(students: Mapping[str, int]) -> set[str]:
    """Return the names of all variants."""
    return {*KINDS, *PRUNED, *PROVIDED, *students, CONVERTED}
