"""The slide: window after window from the prompted slices to the object's ends. No torch here."""
