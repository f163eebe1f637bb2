"""The lines of the tables of images and text, and of their curves, with the settings that the book reports."""

from logitflow import priors
from logitflow.reproduce.common import MakeSampler, Row
from logitflow.run import seeded_generator
from logitflow.samplers import (
    Sampler,
    gradient_flow,
    gradient_root,
    langevin,
    metropolis_hastings,
    optimal_transport,
    precondition,
)
from logitflow.target import LatentTarget

PLAIN = "DGflow (KL), η = 0.1"
"""The curve of the authors' settings, which others are measured by after `PLAIN_STEPS` steps."""
PLAIN_STEPS = 25

CLASS_BETA = 30.0
"""How much sharper than the discriminator's own evidence of a class most lines by class are."""

# Text: what a line takes where it says nothing else.
TEXT_ETA, TEXT_GAMMA = 0.1, 0.001  # DGflow on the critic
TEXT_STEPS = 100  # of DGflow on the critic, whose text improves for long
TEXT_FLOW_STEPS = 25  # of DGflow on another logit
TEXT_FITTED_ETA = 0.005  # DGflow on the fitted logit, whose slope is some thirty times the critic's
# DGflow on the calibrated logit: the critic's, over the calibration's slope
TEXT_DECODED_ETA = 0.007
TEXT_EPSILON, TEXT_CHAIN_STEPS = 0.03, 25  # DDLS
TEXT_DOT_RATE, TEXT_DOT_STEPS = 0.01, 25  # DOT
TEXT_PROPOSALS = 50  # MH-GAN
# DGflow's last steps on the rows themselves: a few, since the critic is soon fooled; noise would blur the rows
TEXT_ROW_STEPS, TEXT_ROW_GAMMA = 35, 1e-5


def image_rows() -> list[Row]:
    """The table's lines for images."""

    def row(name: str, make: MakeSampler, steps: int, most_seeds: int | None = None) -> Row:
        return Row(name, "discriminator", "latent", ((make, steps),), most_seeds)

    def chain(name: str, make: MakeSampler) -> Row:  # these aim at p0·e^d: they want a log ratio
        return row(name, make, 25, most_seeds=1)._replace(logit="calibrated")

    return [
        Row("DRS", "calibrated", "latent", ()),
        Row("MH-GAN", "calibrated", "latent", ((metropolis_hastings, 50),), most_seeds=1),
        row("DOT", _transport(0.01), 25, most_seeds=1),
        chain("DDLS (ULA)", _langevin(0.02)),
        chain("DDLS (MALA)", _langevin(0.02, adjust=True)),
        chain("DDLS (ULA), β = 3", _sharpened(3.0, _langevin(0.006))),
        # of the authors' η the curve tells more: this pair's logit is steep, and shorter steps go further
        row("DGflow (KL)", _flow(0.03), 100, most_seeds=1),
        row("DGflow (KL), preconditioned", _preconditioned(_flow(0.25)), 50, most_seeds=1),
        row("DGflow (JS)", _flow(0.1, "js"), PLAIN_STEPS, most_seeds=1),
        row("DGflow (logD)", _flow(0.1, "logd"), PLAIN_STEPS, most_seeds=1),
        # the papers' γ would add 28 grey levels of noise to each pixel
        Row("DGflow (KL)", "discriminator", "data", ((_flow(0.1, gamma=1e-4), PLAIN_STEPS),)),
        *_rows_by_class(),
    ]


def _rows_by_class() -> list[Row]:
    """The lines that aim each image at a class of its own; proposals first find it a latent of that class."""
    proposals, sharp_proposals = (
        (make, 50) for make in (metropolis_hastings, _sharpened(CLASS_BETA, metropolis_hastings))
    )

    def row(name: str, *stages: tuple[MakeSampler, int], logit: str = "stratified") -> Row:
        return Row(f"{name}, by class", logit, "latent", stages, most_seeds=1)

    ratio = "calibrated, stratified"
    sharp = f", β = {CLASS_BETA:g}"
    return [
        row("MH-GAN", proposals, logit=ratio),
        row("DDLS (ULA)", proposals, (_langevin(0.02), 25), logit=ratio),
        row(f"MH-GAN{sharp}", sharp_proposals),
        row(f"DDLS (ULA){sharp}, preconditioned", sharp_proposals, (_class_chain(), 25)),
        row("DGflow (KL), preconditioned", sharp_proposals, (_class_flow(), PLAIN_STEPS))._replace(
            most_seeds=None
        ),
    ]


def curve_rows() -> list[Row]:
    """The curve's lines for images: quality is taken on the way, so each is as long as its longest run."""

    def line(name: str, *stages: tuple[MakeSampler, int], space: str = "latent") -> Row:
        return Row(name, "discriminator", space, stages, most_seeds=1)

    def chain(name: str, make: MakeSampler) -> Row:
        return line(name, (make, 100))._replace(logit="calibrated")

    falling = [
        0.5 * (1 - k / 10) for k in range(10)
    ]  # their sum is 25 plain steps' and a tenth more
    return [
        line(PLAIN, (_flow(0.1), 60)),
        line("DGflow (KL), η = 0.03", (_flow(0.03), 250)),
        line("DGflow (KL), η = 0.3", (_flow(0.3), 40)),
        line("DGflow (KL), falling η", *((_flow(eta), 1) for eta in falling)),
        line("DGflow (KL), preconditioned, η = 0.1", (_preconditioned(_flow(0.1)), 100)),
        line("DGflow (KL), preconditioned, η = 0.25", (_preconditioned(_flow(0.25)), 60)),
        line("DGflow (KL), pixels", (_flow(0.1, gamma=1e-4), 25), space="data"),
        line("DOT", (_transport(0.01), 100)),
        chain("DDLS (ULA), ε = 0.02", _langevin(0.02)),
        chain("DDLS (ULA), β = 3, ε = 0.006", _sharpened(3.0, _langevin(0.006))),
        *_curves_by_class(),
    ]


def _curves_by_class() -> list[Row]:
    def line(name: str, num_proposals: int, make: MakeSampler, steps: int) -> Row:
        proposals = (_sharpened(CLASS_BETA, metropolis_hastings), num_proposals)
        name = f"{name}, by class, {num_proposals} proposals"
        return Row(name, "stratified", "latent", (proposals, (make, steps)), most_seeds=1)

    return [
        line("DGflow (KL), preconditioned", 5, _class_flow(), 60),
        line("DGflow (KL), preconditioned", 50, _class_flow(), 60),
        line(f"DDLS (ULA), β = {CLASS_BETA:g}, preconditioned", 50, _class_chain(), 60),
    ]


def text_rows() -> list[Row]:
    """The table's lines for text.

    KL's flow takes any logit's gradient; the other divergences weigh it by σ(±d), and MH-GAN and DDLS aim at
    p0·e^d: they want a log ratio, which there is between decoded texts only.
    """

    def row(name: str, logit: str, make: MakeSampler, steps: int) -> Row:
        return Row(name, logit, "latent", ((make, steps),))

    def flow(name: str, divergence: str) -> Row:
        make = _flow(TEXT_FITTED_ETA, divergence, TEXT_GAMMA)
        return row(f"DGflow ({name})", "fitted", make, TEXT_FLOW_STEPS)

    mala = _langevin(TEXT_EPSILON, adjust=True)
    return [
        row("MH-GAN", "calibrated, decoded", metropolis_hastings, TEXT_PROPOSALS),
        row("DOT", "critic", _transport(TEXT_DOT_RATE), TEXT_DOT_STEPS),
        row("DDLS (ULA)", "calibrated", _langevin(TEXT_EPSILON), TEXT_CHAIN_STEPS),
        row("DDLS (MALA)", "calibrated, decoded", mala, TEXT_CHAIN_STEPS),
        row("DGflow (KL)", "critic", _flow(TEXT_ETA, gamma=TEXT_GAMMA), TEXT_STEPS),
        Row(
            "DGflow (KL), then in data space",
            "critic",
            "latent",
            ((_flow(TEXT_ETA, gamma=TEXT_GAMMA), TEXT_STEPS),),
            data_stages=((_flow(TEXT_ETA, gamma=TEXT_ROW_GAMMA), TEXT_ROW_STEPS),),
        ),
        flow("KL", "kl"),
        flow("JS", "js"),
        flow("logD", "logd"),
        Row(
            "MH-GAN, then DGflow (KL)",
            "calibrated, decoded",
            "latent",
            (
                (metropolis_hastings, TEXT_PROPOSALS),
                (_flow(TEXT_DECODED_ETA, gamma=TEXT_GAMMA), TEXT_STEPS // 2),
            ),
        ),
    ]


def text_curve_rows() -> list[Row]:
    """The curve's lines for text."""

    def line(name: str, logit: str, make: MakeSampler, steps: int) -> Row:
        return Row(f"{name}, {logit}", logit, "latent", ((make, steps),), most_seeds=1)

    def flow(logit: str, eta: float, steps: int) -> Row:
        return line(f"DGflow (KL), η = {eta}", logit, _flow(eta, gamma=TEXT_GAMMA), steps)

    rows_alone = _flow(TEXT_ETA, gamma=TEXT_ROW_GAMMA)
    return [
        flow("critic", TEXT_ETA, 2 * TEXT_STEPS),
        flow("critic", 4 * TEXT_ETA, 40),
        flow("fitted", TEXT_FITTED_ETA, 60),
        line(f"DDLS (ULA), ε = {TEXT_EPSILON}", "calibrated", _langevin(TEXT_EPSILON), 60),
        Row(
            f"DGflow (KL), η = {TEXT_ETA}, critic, data space",
            "critic",
            "data",
            ((rows_alone, 4 * TEXT_ROW_STEPS),),
            most_seeds=1,
        ),
    ]


def _transport(step_size: float) -> MakeSampler:
    return lambda target: optimal_transport(target, step_size=step_size)


def _flow(step_size: float, divergence: str = "kl", gamma: float = 0.01) -> MakeSampler:
    return lambda target: gradient_flow(
        target, divergence=divergence, step_size=step_size, gamma=gamma
    )


def _langevin(step_size: float, adjust: bool = False) -> MakeSampler:
    return lambda target: langevin(target, step_size=step_size, adjust=adjust)


def _sharpened(beta: float, make: MakeSampler) -> MakeSampler:
    """The same sampler, aimed at p0·exp(β d) in the place of p0·exp(d)."""

    def sharper(target: LatentTarget) -> Sampler:
        steep = LatentTarget(target.generator, lambda x: beta * target.logit(x), target.prior)
        sampler = make(steep)
        return sampler._replace(description=f"{sampler.description}, logit × {beta:g}")

    return sharper


def _preconditioned(make: MakeSampler, power: float = 0.5) -> MakeSampler:
    """The same sampler in coordinates in which the slopes at the prior's own points are more even."""

    def even(target: LatentTarget) -> Sampler:
        assert target.prior is not None
        pilot = priors.sample(target.prior, 500, seeded_generator(0, 300, target.prior.mean.device))
        root = gradient_root(target, pilot, power=power)
        sampler = precondition(target, make, root)
        return sampler._replace(description=f"{sampler.description}, P = C^−{power}")

    return even


def _class_chain() -> MakeSampler:
    return _sharpened(CLASS_BETA, _preconditioned(_langevin(0.02)))


def _class_flow() -> MakeSampler:
    return _preconditioned(_flow(0.4))
