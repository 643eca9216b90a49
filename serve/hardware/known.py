"""Kinds of cards by their makers' data sheets, so that plans can be made for what one has not."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from serve.hardware.machine import KnownGpu

# Where the figures are from. Memory is no figure of these sheets: it is what CUDA reports, as it
# stands in public logs ("total capacity of 79.18 GiB"); drivers differ by up to 0.2 GiB, and cards
# of the GDDR kind have a sixteenth less where ECC is on (A10, A16, A40, L4, L40, L40S: as shipped).
_SOURCES = {
    "volta": "NVIDIA V100 Tensor Core GPU data sheet",
    "turing": "NVIDIA Turing GPU architecture white paper",
    "t4": "NVIDIA T4 Tensor Core GPU data sheet",
    "ampere": "NVIDIA Ampere GA102 GPU architecture white paper",
    "a100": "NVIDIA A100 Tensor Core GPU data sheet",
    "a-series": "NVIDIA A2, A10, A16, A30, A40 data sheets",
    "a10g": "AWS EC2 G5 instances, product page",
    "rtx-a": "NVIDIA RTX A-series data sheets",
    "ada": "NVIDIA Ada GPU architecture white paper",
    "ada-ws": "NVIDIA RTX Ada Generation workstation data sheets",
    "l": "NVIDIA L4, L20, L40, L40S data sheets",
    "h100": "NVIDIA H100 Tensor Core GPU data sheet",
    "h200": "NVIDIA H200 Tensor Core GPU data sheet",
    "h20": "reported: no public data sheet of this export model",
    "gh200": "NVIDIA GH200 Grace Hopper Superchip data sheet",
    "blackwell": "NVIDIA Blackwell architecture technical brief and HGX/DGX data sheets",
    "rtx50": "NVIDIA RTX Blackwell GPU architecture white paper",
    "pro": "NVIDIA RTX PRO Blackwell data sheets",
    "gb10": "NVIDIA DGX Spark data sheet; formats but FP4 by the usual halves",
    "orin": "NVIDIA Jetson Orin series data sheets, the GPU's part",
    "thor": "NVIDIA Jetson Thor series data sheet; formats but FP4 by the usual halves",
}

# The commonest of a family first: it is what a bare "A100" means. Columns: name; words that must
# be said; words that may be said besides those of the name; GiB; GB/s; dense TFLOP/s in fp16 (with
# fp32 accumulation, half of the sales figure on GeForce cards), fp8, fp4, int8; compute
# capability; NVLink in GB/s, "/2": by a bridge between two (sold apart), else through switches;
# source.
_TABLE = """
H100 SXM 80GB|h100|sxm5 hbm3|79.18|3350|989 1979 - 1979|9.0|900|h100
H100 PCIe 80GB|h100 pcie|hbm2e|79.18|2039|756 1513 - 1513|9.0|600/2|h100
H100 NVL 94GB|h100|hbm3|93.11|3938|835 1671 - 1671|9.0|600/2|h100
H800 SXM 80GB|h800|sxm5 hbm3|79.18|3350|989 1979 - 1979|9.0|400|h100
H200 SXM 141GB|h200|sxm5 hbm3e|139.81|4800|989 1979 - 1979|9.0|900|h200
H200 NVL 141GB|h200 nvl|hbm3e|139.81|4800|835 1671 - 1671|9.0|900/4|h200
H20 96GB|h20|sxm hbm3|95.22|4000|148 296 - 296|9.0|900|h20
H20 141GB|h20|sxm hbm3e 3e|139.81|4800|148 296 - 296|9.0|900|h20
GH200 96GB|gh200|480gb hbm3|94.50|4000|989 1979 - 1979|9.0|900|gh200
GH200 144GB|gh200|480gb hbm3e|140.00|4900|989 1979 - 1979|9.0|900|gh200
B200 180GB|b200|sxm sxm6 hbm3e 192gb|178.35|7672|2250 4500 9000 4500|10.0|1800|blackwell
GB200 186GB|gb200|hbm3e 192gb|184.30|8000|2500 5000 10000 5000|10.0|1800|blackwell
B300 288GB|b300|sxm6 ac hbm3e 270gb|267.60|8000|2250 4500 13500 125|10.3|1800|blackwell
GB300 288GB|gb300|hbm3e 279gb|276.60|8000|2500 5000 15000 165|10.3|1800|blackwell
A100 SXM 80GB|a100|sxm4 hbm2e|79.25|2039|312 - - 624|8.0|600|a100
A100 PCIe 80GB|a100 pcie|hbm2e|79.25|1935|312 - - 624|8.0|600/2|a100
A100 SXM 40GB|a100|sxm4 hbm2|39.49|1555|312 - - 624|8.0|600|a100
A100 PCIe 40GB|a100 pcie|hbm2|39.49|1555|312 - - 624|8.0|600/2|a100
A800 SXM 80GB|a800|sxm4 hbm2e|79.25|2039|312 - - 624|8.0|400|a100
A800 PCIe 80GB|a800 pcie|hbm2e|79.25|1935|312 - - 624|8.0|400/2|a100
A30 24GB|a30|pcie hbm2|23.50|933|165 - - 330|8.0|200/2|a-series
A40 48GB|a40|pcie|44.42|696|149.7 - - 299.3|8.6|112.5/2|a-series
A10 24GB|a10|pcie|22.06|600|125 - - 250|8.6|-|a-series
A10G 24GB|a10g||22.06|600|70 - - 140|8.6|-|a10g
A16 16GB|a16||14.54|200|17.9 - - 35.9|8.6|-|a-series
A2 16GB|a2||14.54|200|18 - - 36|8.6|-|a-series
L40S 48GB|l40s||44.42|864|362 733 - 733|8.9|-|l
L40 48GB|l40||44.42|864|181 362 - 362|8.9|-|l
L20 48GB|l20||44.42|864|119.5 239 - 239|8.9|-|l
L4 24GB|l4||22.03|300|121 242 - 242|8.9|-|l
T4 16GB|t4||14.58|320|65 - - 130|7.5|-|t4
V100 SXM2 16GB|v100|sxm hbm2|15.77|900|125 - - -|7.0|300|volta
V100 SXM2 32GB|v100|sxm sxm3 hbm2|31.73|900|125 - - -|7.0|300|volta
V100 PCIe 16GB|v100 pcie|hbm2|15.77|900|112 - - -|7.0|-|volta
V100 PCIe 32GB|v100 pcie|hbm2|31.73|900|112 - - -|7.0|-|volta
V100S PCIe 32GB|v100s|hbm2|31.73|1134|130 - - -|7.0|-|volta
RTX PRO 6000 96GB|pro 6000|blackwell workstation|94.97|1792|503.8 1008 2015 1008|12.0|-|pro
RTX PRO 6000 Max-Q 96GB|pro 6000 max q|blackwell workstation|94.97|1792|439 878 1756 878|12.0|-|pro
RTX PRO 6000 Server 96GB|pro 6000 server|blackwell|94.97|1597|503.8 1008 2015 1008|12.0|-|pro
RTX PRO 5000 48GB|pro 5000|blackwell|47.30|1344|258 516 1032 516|12.0|-|pro
RTX PRO 5000 72GB|pro 5000 72gb|blackwell|71.10|1344|258 516 1032 516|12.0|-|pro
RTX PRO 4500 32GB|pro 4500|blackwell|31.35|896|211 422 844 422|12.0|-|pro
RTX PRO 4000 24GB|pro 4000|blackwell|23.40|672|147 295 589 295|12.0|-|pro
RTX 6000 Ada 48GB|6000||47.50|960|364 729 - 729|8.9|-|ada-ws
RTX 5000 Ada 32GB|5000||31.49|576|261 522 - 522|8.9|-|ada-ws
RTX 4500 Ada 24GB|4500||23.50|432|158 317 - 317|8.9|-|ada-ws
RTX 4000 Ada 20GB|4000||19.50|360|107 214 - 214|8.9|-|ada-ws
RTX 4000 SFF Ada 20GB|4000 sff||19.50|280|77 153 - 153|8.9|-|ada-ws
RTX 2000 Ada 16GB|2000||15.57|224|48 96 - 96|8.9|-|ada-ws
RTX A6000 48GB|a6000||47.53|768|154.8 - - 309.7|8.6|112.5/2|rtx-a
RTX A5500 24GB|a5500||23.68|768|136.4 - - 272.8|8.6|112.5/2|rtx-a
RTX A5000 24GB|a5000||23.68|768|111.1 - - 222.2|8.6|112.5/2|rtx-a
RTX A4500 20GB|a4500||19.70|640|94.6 - - 189.2|8.6|112.5/2|rtx-a
RTX A4000 16GB|a4000||15.73|448|76.7 - - 153.4|8.6|-|rtx-a
RTX A2000 12GB|a2000||11.74|288|31.9 - - 63.9|8.6|-|rtx-a
RTX 5090 32GB|5090||31.36|1792|209.5 419 1676 838|12.0|-|rtx50
RTX 5080 16GB|5080||15.47|960|112.6 225.1 900.4 450.2|12.0|-|rtx50
RTX 5070 Ti 16GB|5070 ti||15.47|896|87.9 175.8 703 351.5|12.0|-|rtx50
RTX 5070 12GB|5070||11.50|672|61.7 123.5 493.9 246.9|12.0|-|rtx50
RTX 5060 Ti 16GB|5060 ti||15.47|448|47.4 94.9 379.6 189.8|12.0|-|rtx50
RTX 5060 Ti 8GB|5060 ti||7.53|448|47.4 94.9 379.6 189.8|12.0|-|rtx50
RTX 5060 8GB|5060||7.53|448|38.4 76.8 307 153.5|12.0|-|rtx50
RTX 4090 24GB|4090||23.52|1008|165.2 330.3 - 660.6|8.9|-|ada
RTX 4090 D 24GB|4090 d||23.52|1008|147.1 294.2 - 588.4|8.9|-|ada
RTX 4080 SUPER 16GB|4080 super||15.57|736|104.4 208.9 - 417.7|8.9|-|ada
RTX 4080 16GB|4080||15.57|717|97.5 194.9 - 389.9|8.9|-|ada
RTX 4070 Ti SUPER 16GB|4070 ti super||15.57|672|88.2 176.5 - 353|8.9|-|ada
RTX 4070 Ti 12GB|4070 ti||11.60|504|80.2 160.4 - 320.7|8.9|-|ada
RTX 4070 SUPER 12GB|4070 super||11.60|504|71 142 - 284|8.9|-|ada
RTX 4070 12GB|4070||11.60|504|58.3 116.6 - 233.2|8.9|-|ada
RTX 4060 Ti 16GB|4060 ti||15.57|288|44.1 88.3 - 176.5|8.9|-|ada
RTX 4060 Ti 8GB|4060 ti||7.63|288|44.1 88.3 - 176.5|8.9|-|ada
RTX 4060 8GB|4060||7.63|272|30.2 60.5 - 121|8.9|-|ada
RTX 3090 Ti 24GB|3090 ti||23.56|1008|80 - - 320|8.6|112.5/2|ampere
RTX 3090 24GB|3090||23.56|936|71 - - 284|8.6|112.5/2|ampere
RTX 3080 Ti 12GB|3080 ti||11.63|912|68.2 - - 272.8|8.6|-|ampere
RTX 3080 10GB|3080||9.65|760|59.5 - - 238|8.6|-|ampere
RTX 3080 12GB|3080||11.63|912|61.3 - - 245.1|8.6|-|ampere
RTX 3070 Ti 8GB|3070 ti||7.66|608|43.5 - - 174|8.6|-|ampere
RTX 3070 8GB|3070||7.66|448|40.6 - - 162.6|8.6|-|ampere
RTX 3060 Ti 8GB|3060 ti||7.66|448|32.4 - - 129.6|8.6|-|ampere
RTX 3060 12GB|3060||11.63|360|25.5 - - 101.9|8.6|-|ampere
Titan RTX 24GB|titan rtx||23.46|672|130.5 - - 261|7.5|100/2|turing
Quadro RTX 8000 48GB|8000||47.25|672|130.5 - - 261|7.5|100/2|turing
Quadro RTX 6000 24GB|quadro 6000||23.46|672|130.5 - - 261|7.5|100/2|turing
RTX 2080 Ti 11GB|2080 ti||10.75|616|53.8 - - 215.2|7.5|100/2|turing
RTX 2080 SUPER 8GB|2080 super||7.60|496|44.6 - - 178.4|7.5|50/2|turing
RTX 2080 8GB|2080||7.60|448|40.3 - - 161.1|7.5|50/2|turing
RTX 2070 SUPER 8GB|2070 super||7.60|448|36.3 - - 145|7.5|50/2|turing
RTX 2070 8GB|2070||7.60|448|29.9 - - 119.4|7.5|-|turing
RTX 2060 SUPER 8GB|2060 super||7.60|448|28.7 - - 114.8|7.5|-|turing
RTX 2060 6GB|2060||5.61|336|25.8 - - 103.2|7.5|-|turing
RTX 2060 12GB|2060||11.60|336|28.7 - - 114.8|7.5|-|turing
GB10 128GB|gb10|dgx grace blackwell|121.69|273|125 250 500 250|12.1|unified|gb10
Jetson AGX Thor 128GB|thor|t5000 nvgpu|122.80|273|259 518 1035 518|11.0|unified|thor
Jetson AGX Orin 64GB|orin|nvgpu|61.35|205|42.5 - - 85|8.7|unified|orin
Jetson AGX Orin 32GB|orin|nvgpu|29.90|205|27 - - 54|8.7|unified|orin
Jetson Orin NX 16GB|orin nx||15.30|102|15 - - 30|8.7|unified|orin
Jetson Orin Nano 8GB|orin nano||7.40|68|10 - - 20|8.7|unified|orin
"""

_FORMATS: tuple[Literal["fp16", "fp8", "fp4", "int8"], ...] = ("fp16", "fp8", "fp4", "int8")
# Said with many names, and they say nothing.
_FILLERS = frozenset(
    {"nvidia", "geforce", "tesla", "gpu", "generation", "edition", "jetson", "superchip"}
)
_SYNONYMS = {"spark": "gb10"}
# A memory within this share of a kind's own is that kind's: drivers, ECC and desktops take some.
_MEMORY_TOLERANCE = 0.1
_GLUED = re.compile(r"(rtx|pro|titan|quadro)(?=[a-z]?\d)")
_SUFFIX = re.compile(
    r"(?<=\d)(?=(?:ti|tisuper|super|ada|sxm\d?|pcie|nvl|hbm\w+)\b)|(?<=ti)(?=super\b)"
)
_SIZE = re.compile(r"\b(\d+) ?g(?:i?b)?\b")


@dataclass(frozen=True, slots=True)
class _Kind:
    gpu: KnownGpu
    required: frozenset[str]
    allowed: frozenset[str]


def known_gpus(like: str | None = None) -> tuple[KnownGpu, ...]:
    """All kinds of cards that are known, or those that a name means, the commonest first.

    `like`: "A100" (80 and 40 GB, on SXM boards), "A100 PCIe", "rtx4090", "H100 80GB HBM3",
    "NVIDIA GeForce RTX 3090"; () where nothing has that name.
    """
    if like is None:
        return tuple(kind.gpu for kind in _kinds())
    said = _words(like)
    return tuple(k.gpu for k in _kinds() if k.required <= said <= k.allowed)


def find_known(name: str, total_bytes: int) -> KnownGpu | None:
    """The data sheet of a real card; its memory tells apart what shares a name."""
    fitting = [
        gpu
        for gpu in known_gpus(name)
        if abs(gpu.memory_bytes - total_bytes) <= _MEMORY_TOLERANCE * gpu.memory_bytes
    ]
    return min(fitting, key=lambda gpu: abs(gpu.memory_bytes - total_bytes), default=None)


@cache
def _kinds() -> tuple[_Kind, ...]:
    return tuple(_kind(line) for line in _TABLE.strip().splitlines())


def _kind(line: str) -> _Kind:
    name, required, also, gib, speed, flops, capability, link, source = line.split("|")
    major, minor = capability.split(".")
    width, _, bridged = link.partition("/")
    figures = zip(_FORMATS, flops.split(), strict=True)
    words = _words(name)
    gpu = KnownGpu(
        name=name,
        memory_bytes=round(float(gib) * 2**30),
        bandwidth=round(float(speed) * 1e9),
        flops=tuple((form, round(float(f) * 1e12)) for form, f in figures if f != "-"),
        compute_capability=(int(major), int(minor)),
        link_bandwidth=0 if width in ("-", "unified") else round(float(width) * 1e9),
        source=_SOURCES[source],
        is_unified=width == "unified",
        bridged=int(bridged or 0),
    )
    allowed = words | frozenset(also.split()) | frozenset(required.split())
    return _Kind(gpu, frozenset(required.split()), allowed)


def _words(name: str) -> frozenset[str]:
    """`"NVIDIA A100-SXM4-80GB"` → {a100, sxm4, 80gb}."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    text = _SIZE.sub(r"\1gb", _SUFFIX.sub(" ", _GLUED.sub(r"\1 ", text)))
    return frozenset(_SYNONYMS.get(word, word) for word in text.split()) - _FILLERS
