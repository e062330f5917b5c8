"""DICOM: a folder of files becomes one scan. `series` reads it; the other modules are its parts."""

from dataloaders.io.dicom.files import describe as describe
from dataloaders.io.dicom.files import is_dicom_file as is_dicom_file
from dataloaders.io.dicom.series import DicomSeries as DicomSeries
from dataloaders.io.dicom.series import read_dicom_series as read_dicom_series
from dataloaders.io.dicom.series import read_dicom_slices as read_dicom_slices
