"""TensorFlow's operators that a SavedModel may hold: arithmetic, its own variables, and how it saves itself."""

from __future__ import annotations

# these read and write checkpoints: only in the functions with which a SavedModel saves itself
SAVING = frozenset(
    ("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "StringJoin", "StaticRegexFullMatch")
)

_PLUMBING = """
    Const Placeholder PlaceholderWithDefault Identity IdentityN NoOp PartitionedCall StatefulPartitionedCall
    StopGradient PreventGradient Snapshot EnsureShape Bitcast Cast Assert
    VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp VarIsInitializedOp
    ResourceGather Gather GatherV2 GatherNd DisableCopyOnRead
"""
_SHAPES = """
    Shape ShapeN Size Rank Reshape ExpandDims Squeeze Transpose Concat ConcatV2 Pack Unpack Split SplitV Slice
    StridedSlice Pad PadV2 MirrorPad Tile Fill Range ZerosLike OnesLike BroadcastTo BroadcastArgs ReverseV2 Where
    BatchToSpaceND SpaceToBatchND DepthToSpace SpaceToDepth OneHot LinSpace InvertPermutation
    ConjugateTranspose BroadcastGradientArgs
"""
_ARITHMETIC = """
    Add AddV2 AddN BiasAdd BiasAddV1 Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv FloorMod Mod TruncateDiv Neg Abs
    Sign Square SquaredDifference Sqrt Rsqrt Reciprocal Inv Pow Exp Expm1 Log Log1p Erf Erfc Erfinv Sin Cos Tan Atan
    Atan2 Floor Ceil Round Rint Maximum Minimum ClipByValue Sum Mean Max Min Prod All Any Cumsum ArgMax ArgMin L2Loss
    Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot Select SelectV2
    IsFinite IsNan IsInf ApproximateEqual TopKV2
"""
_NETWORKS = """
    MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv2D DepthwiseConv2dNative Conv2DBackpropInput
    MaxPool MaxPoolV2 AvgPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN
    Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softplus Softsign Softmax LogSoftmax
    ResizeBilinear ResizeNearestNeighbor
"""
_RANDOM = """
    RandomUniform RandomStandardNormal RandomUniformInt TruncatedNormal StatelessRandomUniform StatelessRandomUniformV2
    StatelessRandomGetKeyCounter StatelessRandomGetAlg StatelessRandomGetKeyCounterAlg StatelessRandomUniformFullIntV2
    StatelessRandomNormalV2 StatelessRandomUniformIntV2
"""
COMPUTING = frozenset((_PLUMBING + _SHAPES + _ARITHMETIC + _NETWORKS + _RANDOM).split())
