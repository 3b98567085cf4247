"""Writes the reference data of tests/data; ../generate.py is the command.

The variables below must be set before torch is imported, so they live in the package's own
import. They make the bytes independent of the machine as far as the libraries allow: MKL and
ATen otherwise choose kernels, and with them the order of additions, by CPU model.
"""

import os

os.environ["MKL_CBWR"] = "COMPATIBLE"
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
