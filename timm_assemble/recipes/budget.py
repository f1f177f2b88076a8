"""What a recipe costs on ImageNet-1k, estimated, and what was published of the nearest training.

No training was timed on a GPU. The estimate starts from the images/s of inference that were measured on one NVIDIA H200
(TensorFloat32, eager, batch size 128, benchmarks/results/throughput_cuda.json), takes a training step for three forward
passes, one forward and two backward, and scales with the number of pixels. bfloat16 and compilation are not in it, nor
the reading of the images.
"""
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ..errors import UserError
from . import Recipe, read_config, read_recipe, recipe_names, recipe_path
from .paper import FINE_TUNING_TOP1

__all__ = ['BYTES_PER_VIEW', 'DATA_GB', 'IMAGES', 'SPEEDS', 'Estimate', 'Speed', 'estimate', 'estimates', 'head_alone']

IMAGES = 1_281_167  # of ImageNet-1k's training set
DATA_GB = 155  # its archives of training and validation images
BYTES_PER_VIEW = 50  # seed, checksum and the ten largest logits
MAX_VIEWS = 50  # as in the recipes with views
PASSES = 3  # forward passes that a training step is taken for


class Speed(NamedTuple):
    """What was measured of a network.

    Attributes:
        size: Height and width of the images on the GPU.
        images_per_s: Images/s of inference on an H200.
        megabytes: Float32 values saved for the backward pass per image of 224 x 224, in MB.
        parameters: In millions.
    """

    size: int
    images_per_s: float
    megabytes: float
    parameters: float


SPEEDS: Dict[str, Speed] = {
    'assemble_resnet50_d': Speed(224, 7295, 104.7, 25.58),
    'assemble_resnet50_bl_sk': Speed(256, 5949, 75.0, 41.85),
    'assemble_resnet50': Speed(256, 4764, 90.5, 41.85),
    'assemble_resnet101': Speed(256, 3886, 111.7, 66.35),
    'assemble_resnet152': Speed(256, 2264, 207.7, 117.00),
    'assemble_mobilenet': Speed(224, 25342, 61.0, 4.23),
    'assemble_mobilenet_se16': Speed(224, 19683, 68.7, 4.59),
    'assemble_mobilenet_se2': Speed(224, 19590, 68.7, 7.03),
}


class Estimate(NamedTuple):
    """The estimated cost of a recipe.

    Attributes:
        recipe: The recipe.
        model: The network, the recipe's own or another.
        images_per_s: Images/s of training on one GPU, the mean over all sizes.
        gpu_hours: Hours of one GPU for all epochs, without validation.
        memory_gb: Memory for weights, gradients, optimizer, average and one batch, in half precision.
        store_gb: Disk for as many stored views as epochs, 50 at most.
        top1: Published top-1 in percent of this or the nearest training, or None.
        network: What the top-1 is of.
    """

    recipe: Recipe
    model: str
    images_per_s: float
    gpu_hours: float
    memory_gb: float
    store_gb: float
    top1: Optional[float]
    network: str

    def published(self) -> str:
        """Return the published top-1 and what it is of, as text."""
        return f'{self.top1:.2f} ({self.network})' if self.top1 else '-'


def head_alone(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration trains the classifier and nothing else: a step is then a forward pass."""
    return 'layer_decay_no_opt_scale' in config


def _sizes(config: Mapping[str, Any]) -> List[int]:
    return config.get('train_img_sizes') or [config.get('img_size', 224)]


def _memory_gb(config: Mapping[str, Any], speed: Speed) -> float:
    """Return the memory of the largest images; activations in half precision, all else in float32."""
    copies = 1 if head_alone(config) else 4 if config['opt'] in ('lamb', 'adamw') else 3  # weight, gradient, state
    copies += bool(config.get('model_ema'))
    activations = 0.0 if head_alone(config) else speed.megabytes / 2 * (max(_sizes(config)) / 224) ** 2
    return (4 * copies * speed.parameters + config['batch_size'] * activations) / 1000


def estimate(name: str, model: Optional[str] = None) -> Estimate:
    """Estimate the cost of a recipe on ImageNet-1k.

    Args:
        name: Name of the recipe.
        model: Another network for it.

    Raises:
        UserError: The recipe does not exist, or the speed of the network was not measured.
    """
    recipe = read_recipe(name)
    config = read_config(recipe_path(name))
    model = model or recipe.model
    if model not in SPEEDS:
        raise UserError(f'model must be one whose speed was measured, {", ".join(SPEEDS)}, got {model!r}')
    speed = SPEEDS[model]
    passes = 1 if head_alone(config) else PASSES
    seconds = [passes / speed.images_per_s * (size / speed.size) ** 2 for size in _sizes(config)]
    images_per_s = len(seconds) / sum(seconds)
    own = model == recipe.model and recipe.top1
    return Estimate(
        recipe, model, images_per_s, recipe.epochs * IMAGES / images_per_s / 3600, _memory_gb(config, speed),
        min(recipe.epochs, MAX_VIEWS) * BYTES_PER_VIEW * IMAGES / 1e9,
        float(recipe.top1) if own else recipe.nearest.top1 if recipe.nearest else None,
        'this network' if own else recipe.nearest.network if recipe.nearest else '')


def estimates(gpu_hours: float, model: Optional[str] = None) -> List[Estimate]:
    """Return the estimates of ImageNet-1k's recipes within a budget, the best published top-1 first.

    Recipes of networks without a measured speed are left out, and those that begin from a trained network.
    A given network has its own recipes and those that are not the paper's.

    Args:
        gpu_hours: Hours of one H200.
        model: The network of all recipes; by default each recipe's own.
    """
    recipes = [recipe for recipe in map(read_recipe, recipe_names())
               if recipe.row not in FINE_TUNING_TOP1 and not head_alone(read_config(recipe_path(recipe.name)))]
    found = [estimate(recipe.name, model) for recipe in recipes
             if (recipe.model in SPEEDS if model is None else recipe.nearest or recipe.model == model)]
    return sorted((e for e in found if e.gpu_hours <= gpu_hours), key=lambda e: (-(e.top1 or 0), e.gpu_hours))
