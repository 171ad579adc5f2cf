"""All that a person does with the effect, without Qt; the buttons are in SlideSAMEffect."""
