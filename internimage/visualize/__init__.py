"""Results to look at: drawn on their images, on sheets, as confusion matrices."""

from internimage.visualize.draw import draw as draw
from internimage.visualize.sheets import contact_sheet as contact_sheet
from internimage.visualize.sheets import draw_confusion as draw_confusion
from internimage.visualize.text import ACCENT as ACCENT
from internimage.visualize.text import PANEL as PANEL
from internimage.visualize.text import WRONG as WRONG
from internimage.visualize.text import distinct_color as distinct_color
