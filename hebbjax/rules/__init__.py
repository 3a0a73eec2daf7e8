"""Who learns and what: competitions, rules, prototypes, maps, memory, teachers."""

from hebbjax.rules.associative import associate
from hebbjax.rules.competition import graded, hard_wta, k_wta, krotov_ranks, linear, signed_soft_wta, soft_wta
from hebbjax.rules.hebbian import hebb, krotov, oja, sanger, softhebb
from hebbjax.rules.learned import MlpParams, mlp, mlp_params, taylor
from hebbjax.rules.local import count_wins, from_leak, local, mean_over_credit, mean_over_patches, sum_over_patches
from hebbjax.rules.memory import bcm, trace
from hebbjax.rules.prototypes import instar, random_abstention
from hebbjax.rules.som import lattice, som
from hebbjax.rules.teachers import feedback, groups, one_hot, random_feedback
from hebbjax.rules.top_k import in_top_k, top_k

__all__ = [
    'MlpParams', 'associate', 'bcm', 'count_wins', 'feedback', 'from_leak', 'graded', 'groups', 'hard_wta', 'hebb',
    'in_top_k', 'instar', 'k_wta', 'krotov', 'krotov_ranks', 'lattice', 'linear', 'local', 'mean_over_credit',
    'mean_over_patches', 'mlp', 'mlp_params', 'oja', 'one_hot', 'random_abstention', 'random_feedback', 'sanger',
    'signed_soft_wta', 'soft_wta', 'softhebb', 'som', 'sum_over_patches', 'taylor', 'top_k', 'trace',
]  # fmt: skip
