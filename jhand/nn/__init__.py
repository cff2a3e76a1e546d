"""Layers that systems share: scans, convolutions, attention, graphs, backbones, heads."""

from jhand.nn.scan import selective_scan as selective_scan
from jhand.nn.scan import selective_scan_along as selective_scan_along
from jhand.nn.scan import selective_scan_associative as selective_scan_associative
from jhand.nn.scan import selective_scan_chunked as selective_scan_chunked
from jhand.nn.scan import selective_scan_sequential as selective_scan_sequential
from jhand.nn.scan import selective_scan_step as selective_scan_step
from jhand.nn.scan import ssd as ssd
from jhand.nn.scan import ssd_step as ssd_step
