"""What the tests of several pages expect of one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


def expect_heading(page: "Page", text: str) -> None:
    """Wait for the page with this heading: an answer takes its time after a click or a key."""
    from playwright.sync_api import expect

    expect(page.locator("h1")).to_have_text(text)


def expect_text(page: "Page", text: str) -> None:
    """Wait for a page that says this."""
    from playwright.sync_api import expect

    expect(page.locator("main")).to_contain_text(text)


def expect_no_violation(page: "Page", axe: str) -> None:
    """WCAG 2.2 A and AA, and axe's best practices."""
    page.evaluate(axe)
    results: dict[str, Any] = page.evaluate("axe.run()")
    found = [
        (violation["impact"], violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in results["violations"]
    ]
    assert found == []
    assert len(results["passes"]) > 10, "it looked at something"


def expect_to_fit(page: "Page", width: int) -> None:
    """WCAG 2.2, 1.4.10 and 2.5.8: no sideways scrolling, targets a thumb hits (a checkbox by its label)."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for element in page.locator("button, input:not([type=checkbox]), label.choice").all():
        if not element.is_visible():
            continue
        box = element.bounding_box()
        assert box
        assert box["height"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
