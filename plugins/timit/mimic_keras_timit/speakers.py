"""The speakers of each split. The training set is all speakers under TRAIN."""

# The core test set: two men and one woman of each of the eight dialect regions; testset.doc of the corpus, and
# Garofolo et al. 1993, "DARPA TIMIT acoustic-phonetic continuous speech corpus".
CORE_TEST = frozenset(
    "MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0 MBPM0 MKLT0 FNLP0 MCMJ0 MJDH0 FMGD0 MGRT0 "
    "MNJM0 FDHC0 MJLN0 MPAM0 FMLD0".split()
)
# The development set: 50 other speakers under TEST; Halberstadt 1998, "Heterogeneous acoustic measurements and multiple
# classifiers for speech recognition", PhD thesis, MIT. Ba & Caruana 2014, section 3, use a set of this size.
DEVELOPMENT = frozenset(
    "FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0 FADG0 FDMS0 FEDW0 MGJF0 MGLB0 MRTK0 "
    "MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0 MBNS0 MMJR0 MDLS0 MDLF0 MDVC0 MERS0 FMAH0 FDRW0 MRCS0 MRJM4 FCAL1 MMWH0 "
    "FJSJ0 MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0 MTEB0 MJFC0 MRJR0 FMML0 MRWS1".split()
)
# Utterances on the disc, without the two sentences (SA) that every speaker reads.
DISC_UTTERANCES = {"train": 3696, "validation": 400, "test": 192}
