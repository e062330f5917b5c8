"""What images it: scanner, dermatoscope, X-ray film."""
