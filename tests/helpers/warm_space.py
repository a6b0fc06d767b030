"""A space in which a plain ViT of the digits is the largest architecture."""

SPACE = """
name: warm
backbone: {image_size: 8, patch_size: 2, num_classes: auto, head_dim: 8}
embed_dim: [16, 24]
depth: 2
layers:
  num_tokens: [16, 9]
  reducer: [pool, glad]
  attention: [dynamic, static, linear]
  hallucination_ratio: [0, 0.34]
  hallucination: [copy, mix_conv]
  num_heads: [2, 3]
  ffn_rank: [0.5, 1]
  mlp_ratio: [1, 2]
rules: {static_after_reduction: true}
"""
