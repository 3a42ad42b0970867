from __future__ import annotations
from dataclasses import dataclass
import torch, math
import tensorly as tl
from tensorly.decomposition import parafac, tensor_train


@dataclass(frozen=True)
class Tucker2:
    core_QRHW: object
    U_OQ: object
    V_RI: object
    error: float
    norm: float


def hosvd_bounds(K):
    K = K.double()
    k = K.reshape(K.shape[0], K.shape[1], -1)
    out = []
    for m in (k.reshape(k.shape[0], -1), k.transpose(0, 1).reshape(k.shape[1], -1)):
        s = torch.linalg.eigvalsh(m @ m.T).clamp_min(0).flip(0)
        t = torch.cat([s.flip(0).cumsum(0).flip(0), torch.zeros(1).double()]).sqrt()
        out.append(t)
    return tuple(out)


def tucker2(K, ranks, *, sweeps=1):
    k = K.double().reshape(K.shape[0], K.shape[1], -1)
    U = torch.linalg.eigh(k.reshape(k.shape[0], -1) @ k.reshape(k.shape[0], -1).T)[1].flip(1)[:, : ranks[0]]
    m = k.transpose(0, 1).reshape(k.shape[1], -1)
    V = torch.linalg.eigh(m @ m.T)[1].flip(1)[:, : ranks[1]]
    core = torch.einsum("oik,oq,ir->qrk", k, U, V)
    e = (k - torch.einsum("qrk,oq,ir->oik", core, U, V)).norm()
    d = K.dtype
    return Tucker2(
        core.reshape(ranks[0], ranks[1], *K.shape[2:]).to(d), U.to(d), V.T.contiguous().to(d), float(e), float(k.norm())
    )


@dataclass(frozen=True)
class CP:
    factors: tuple
    error: float
    norm: float
    degeneracy: float


def cp(K, rank, *, iterations=50, tolerance=1e-6, seed=0):
    with tl.backend_context("pytorch", local_threadsafe=True):
        w, f = parafac(
            K.double(), rank, n_iter_max=iterations, init="svd" if rank <= min(K.shape) else "random", random_state=seed
        )
        f = [x.clone() for x in f]
        f[0] = f[0] * w
        e = float((K.double() - tl.cp_to_tensor((None, f))).norm())
    return CP(tuple(x.to(K.dtype) for x in f), e, float(K.double().norm()), 1.0)


@dataclass(frozen=True)
class TT:
    cores: list
    error: float
    norm: float


def tt_svd(T, ranks):
    d = T.dim()
    ranks = [ranks] * (d - 1) if isinstance(ranks, int) else list(ranks)
    with tl.backend_context("pytorch", local_threadsafe=True):
        c = [x for x in tensor_train(T.double(), [1, *ranks, 1])]
        e = float((T.double() - tl.tt_to_tensor(c)).norm())
    return TT([x.to(T.dtype) for x in c], e, float(T.double().norm()))


def tt_matrix(W, om, im, ranks):
    d = len(om)
    T = W.detach().reshape(*om, *im).permute([x for k in range(d) for x in (k, d + k)]).reshape([o * i for o, i in zip(om, im)])
    t = tt_svd(T, ranks)
    return TT([c.reshape(c.shape[0], o, i, c.shape[2]) for c, o, i in zip(t.cores, om, im)], t.error, t.norm)


def modes_of(n, count):
    out = []
    for k in range(count, 0, -1):
        target = round(n ** (1 / k))
        f = min((x for x in range(1, n + 1) if n % x == 0), key=lambda x: abs(x - target))
        out.append(f)
        n //= f
    return tuple(out)
