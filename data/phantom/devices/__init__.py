"""Image acquisition: scanners, dermatoscope and X-ray film."""
