"""Images, classes, preprocessing and fingerprints: every part of the package reads them here."""
from .classes import ClassMap
from .images import list_images, read_image
from .preprocessing import Preprocessing

__all__ = ['ClassMap', 'Preprocessing', 'list_images', 'read_image']
