from agnes_onnx.exporter import OnnxExporter
from agnes_onnx.loader import OnnxLoader
from onnx_classifiers import NETS, exported, made, opened

from agnes.testing import ExporterChecks, LoaderChecks


class TestLoader(LoaderChecks):
    method = OnnxLoader()

    def good(self, folder):
        return exported(made("residual"), NETS["residual"][1], folder / "good.onnx")


class TestExporter(ExporterChecks):
    method = OnnxExporter()
    suffix = ".onnx"
    network_name = "batch_norm"

    def reopened(self, path):
        return opened(path)
