"""Files in and out: NIfTI, DICOM, PNG, packed arrays, and the geometry between grids."""
