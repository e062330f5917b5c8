"""Published runs and figures, printed next to ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRun:
    """A run of a paper, as words of `training.py with`, and what is claimed for it."""

    words: str
    source: str
    hardware: str
    expected: str  # Dice x 100 (standard deviation), or why there is none


NOISE_COLUMNS = ((0.0, 0.0), (0.3, 0.5), (0.3, 0.7), (0.5, 0.5), (0.5, 0.7), (0.7, 0.5), (0.7, 0.7))

# Dice x 1000, and the standard deviation over three seeds x 1000, for NOISE_COLUMNS.
# Source: Gonzalez-Jimenez et al., "Robust T-Loss for medical image segmentation", MICCAI 2023, tables 1 and 2.
T_LOSS_TABLES = {
    "ISIC2017": {
        "GCE": "828(6) 805(9) 785(14) 772(15) 736(17) 743(12) 691(22)",
        "MAE": "826(6) 803(7) 786(12) 771(10) 742(14) 751(9) 698(20)",
        "RCE": "827(5) 802(6) 791(11) 779(11) 745(17) 752(10) 695(16)",
        "SCE": "828(6) 806(9) 793(11) 774(12) 738(14) 756(10) 691(20)",
        "NGCE": "825(6) 803(7) 788(8) 773(11) 745(16) 745(11) 688(19)",
        "NCE+RCE": "829(6) 799(8) 792(12) 777(11) 751(18) 746(11) 696(13)",
        "NGCE+MAE": "828(5) 802(8) 788(13) 774(10) 741(18) 748(11) 693(15)",
        "NGCE+RCE": "827(7) 807(7) 790(11) 776(13) 736(17) 748(10) 689(17)",
        "T-Loss": "825(5) 809(6) 804(5) 800(11) 790(5) 788(7) 761(6)",
    },
    "SHENZHEN": {
        "GCE": "948(1) 933(6) 930(8) 909(12) 880(19) 856(14) 807(23)",
        "MAE": "949(2) 937(6) 931(8) 910(11) 880(16) 864(20) 823(23)",
        "RCE": "949(2) 938(4) 931(8) 910(10) 886(20) 863(15) 818(26)",
        "SCE": "949(3) 938(4) 930(6) 908(9) 881(18) 865(15) 821(24)",
        "NGCE": "949(2) 936(7) 933(9) 906(12) 875(23) 865(17) 822(24)",
        "NCE+RCE": "949(2) 936(7) 928(9) 906(12) 879(18) 863(18) 818(23)",
        "NGCE+MAE": "949(1) 938(5) 934(6) 906(11) 877(19) 865(16) 824(21)",
        "NGCE+RCE": "949(2) 936(5) 930(10) 909(10) 884(17) 862(12) 821(26)",
        "T-Loss": "949(1) 948(1) 939(1) 914(5) 904(8) 896(7) 870(31)",
    },
}

TEST_IMAGES = {"ISIC2017": 600, "SHENZHEN": 170}  # of the published figures


def published_dice(dataset: str, method: str) -> dict[tuple[float, float], str]:
    """(alpha, beta) -> "76.1 (0.6)" of a method on a data set; empty where no figure could be verified."""
    line = T_LOSS_TABLES.get(dataset, {}).get(method, "")
    figures = {}
    for column, text in zip(NOISE_COLUMNS, line.split(), strict=False):
        mean, _, spread = text.rstrip(")").partition("(")
        figures[column] = f"{int(mean) / 10:.1f} ({int(spread) / 10:.1f})"
    return figures


DOMAINS = ("A", "B", "C", "D")

# Dice x 100 of a tested domain, over patients, for DOMAINS and their mean; trained on the other three domains.
# Data set, labelled patients -> method -> figures; those of CACPS on MMS with standard deviations over patients, of the
# mean over domains.
# Source: MMS: table of Yao, Hu and Li (CACPS, AAAI 2022) and its released code, with histogram matching and a network
# pretrained on ImageNet. SCGM: CACPS as in its released code (pretrained), the others in the table of VDPL (random
# weights, where CACPS has 87.37 88.09 84.20 90.45, mean 87.53).
SOURCES_TABLES = {
    ("MMS", "2 %"): {
        "nnU-Net": "52.87 64.63 72.97 73.27 65.94",
        "SDNet+Aug": "54.48 67.81 76.46 74.35 68.28",
        "LDDG": "59.47 56.16 68.21 68.56 63.16",
        "SAML": "56.31 56.32 75.70 69.94 64.57",
        "DGNet": "66.01 72.72 77.54 75.14 72.85",
        "CACPS": "82.35(6.24) 82.84(7.59) 86.31(5.47) 86.58(4.78) 84.52(1.94)",
    },
    ("MMS", "5 %"): {
        "nnU-Net": "65.30 79.73 78.06 81.25 76.09",
        "SDNet+Aug": "71.21 77.31 81.40 79.95 77.47",
        "LDDG": "66.22 69.49 73.40 75.66 71.29",
        "SAML": "67.11 76.35 77.43 78.64 74.88",
        "DGNet": "72.40 80.30 82.51 83.77 79.75",
        "CACPS": "83.30(5.83) 85.04(6.49) 87.14(4.74) 87.38(4.49) 85.72(1.67)",
    },
    ("SCGM", "20 %"): {
        "DGNet": "87.45 81.05 61.85 87.96 79.58",
        "CACPS": "87.13 87.31 78.75 91.70 86.22",
        "VDPL": "89.69 89.31 86.17 92.12 89.32",
    },
}

# Tested patients of each of DOMAINS. Source: the data sets' descriptions, labelled patients.
TEST_PATIENTS = {"MMS": (95, 125, 50, 50), "SCGM": (10, 10, 10, 10)}


def published_domain_dice(dataset: str, labelled: str, method: str) -> tuple[str, ...]:
    """Figures such as "82.35 ± 6.24" of a method on each of `DOMAINS`, and the mean; empty: none could be verified."""
    line = SOURCES_TABLES.get((dataset, labelled), {}).get(method, "")
    return tuple(text.rstrip(")").replace("(", " ± ") for text in line.split())
