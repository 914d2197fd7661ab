"""An experiment proposed for a table of one's own, a chip and a device."""
