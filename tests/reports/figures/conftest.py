"""What must hold of every figure."""

import pytest
from matplotlib.text import Text


def _check_texts(figure):
    """No text of the figure touches another or leaves it, and no axes lie over others."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    shrunk = [(text, box.shrunk(0.98, 0.9)) for text, box in boxes if box.width]
    assert not [
        (a, b)
        for i, (a, box) in enumerate(shrunk)
        for b, other in shrunk[i + 1 :]
        if box.overlaps(other)
    ]
    axes = [ax.get_window_extent(renderer) for ax in figure.axes]
    assert not any(box.overlaps(other) for i, box in enumerate(axes) for other in axes[i + 1 :])


@pytest.fixture
def check_texts():
    return _check_texts
