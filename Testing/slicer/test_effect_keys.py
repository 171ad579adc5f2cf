"""Keys in slice views: the effect takes those that it has used, and others get the rest."""

import pytest

pytestmark = pytest.mark.slicer
KEYS = ("Delete", "Return", "KP_Enter", "c", "x")


@pytest.fixture
def passed_on(stage_of):
    """Presses a key in a view, and tells whether what comes after the effect sees it."""

    def press(stage, key):
        seen = []
        tag = stage.view.interactor.AddObserver(
            "KeyPressEvent", lambda caller, event: seen.append(caller.GetKeySym()), 0.0
        )
        stage.key(key)
        stage.view.interactor.RemoveObserver(tag)
        assert seen in ([], [key])
        return bool(seen)

    return press


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_do_nothing_are_for_others(stage_of, passed_on, key):
    """Delete, for one: Markups removes the control point under the mouse with it."""
    assert passed_on(stage_of(), key)


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_for_others_while_it_slides(stage_of, passed_on, quick_model, key):
    stage = stage_of()
    stage.click()
    stage.wait()
    quick_model.delay = 0.15
    stage.panel.segment.click()
    assert stage.interaction.sliding
    assert passed_on(stage, key)


def test_delete_is_taken_on_a_mark_only(stage_of, passed_on):
    stage = stage_of()
    stage.click((6, 5, 6))
    stage.click((11, 9, 6))
    stage.wait()
    stage.view.event("MouseMoveEvent", (2, 2))
    assert passed_on(stage, "Delete") and len(stage.interaction.book.prompts) == 2
    stage.view.event("MouseMoveEvent", stage.xy((11, 9, 6)))
    assert not passed_on(stage, "Delete") and len(stage.interaction.book.prompts) == 1


def test_keys_that_do_something_are_taken(stage_of, passed_on):
    stage = stage_of()
    stage.click()
    stage.wait()
    assert not passed_on(stage, "c")
    stage.wait()
    assert not passed_on(stage, "Return")
    stage.wait()
    assert stage.mask().any()
    assert not passed_on(stage, "x")
    assert passed_on(stage, "c")  # there is a result: nothing to choose from
    assert "Other masks are chosen before the slide" in stage.message


def test_without_a_view_of_that_direction_the_weakest_slice_cannot_be_shown(stage_of, passed_on):
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.panel.segment.click()
    stage.wait()
    stage.view.node.SetOrientation("Sagittal")
    assert passed_on(stage, "x") and "No view" in stage.message


def test_a_key_acts_when_it_goes_down(stage_of):
    """Slicer sends its release, too: as of one that was pressed elsewhere."""
    stage = stage_of()
    stage.click()
    stage.wait()
    stage.view.event("MouseMoveEvent", stage.xy())
    stage.view.event("KeyReleaseEvent", stage.xy(), key="Delete")
    assert len(stage.interaction.book.prompts) == 1
    stage.view.event("KeyPressEvent", stage.xy(), key="Delete")
    assert len(stage.interaction.book.prompts) == 0
