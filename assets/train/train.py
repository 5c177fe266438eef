#!/usr/bin/env python3
"""Train the small story-writing Llama and its tokenizer, from text files to a Hugging Face folder.

    train.py run    --real STORIES.txt --held-out HELD_OUT.txt --out OUT [--minutes 7]
    train.py export --packed OUT/packed.npz --tokenizer OUT/tokenizer.json --hf HF_FOLDER

`run` needs a CUDA device, PyTorch and `tokenizers`; `export` needs only numpy and safetensors.
`run` leaves in OUT: tokenizer.json, packed.npz (4-bit codes, f16 scales, float norms),
samples.txt and log.json. See README.md beside this file.
"""
import argparse
import json
import math
import os
import random
import re
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

BOS, EOS = "<|bos|>", "<|eos|>"
BOS_ID, EOS_ID = 0, 1
GROUP = 32
CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu",
    hidden_size=384, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=2, head_dim=64,
    intermediate_size=1024, vocab_size=4096, max_position_embeddings=1024, rms_norm_eps=1e-5,
    rope_theta=10000.0, rope_scaling=None, tie_word_embeddings=True, attention_bias=False, mlp_bias=False,
    attention_dropout=0.0, initializer_range=0.02, bos_token_id=BOS_ID, eos_token_id=EOS_ID,
    pretraining_tp=1, use_cache=True, torch_dtype="float32")
GENERATION = dict(do_sample=True, temperature=0.7, top_k=40, top_p=0.95, bos_token_id=BOS_ID, eos_token_id=EOS_ID, max_new_tokens=500)


# ---------------------------------------------------------------- text

def clean(text):
    for a, b in (("“", '"'), ("”", '"'), ("’", "'"), ("‘", "'"), ("…", "..."), ("–", "-"), ("—", "-"), ("«", '"'), ("»", '"')):
        text = text.replace(a, b)
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.strip().split("\n")]
    return "\n".join(line for line in lines if line)


def read_stories(path):
    with open(path, encoding="utf-8") as f:
        parts = f.read().split("<|endoftext|>")
    return [s for s in (clean(p) for p in parts) if len(s) > 100]


def real_split(real, held_out):
    """The real stories, without the held-out ones, without the one the sample cuts off, and without doubles."""
    held = read_stories(held_out)
    out = set(held)
    train = [s for s in dict.fromkeys(read_stories(real)) if s not in out and s[-1] in '.!?"\'']
    return train, held


# Names that are swapped for others of the same gender when a real story is shown again.
SWAP_F = "Lily Mia Anna Lucy Sarah Jane Sara Sue Molly Jill Lila Sally Mary Amy Jen Emma Jenny Elly Emily Susie Bella Cindy Polly Rosie Lisa Lola Ella Sophie Lulu Kate Alice Julie Lizzie".split()
SWAP_M = "Ben Tom Timmy Jack Tim John Bob Joe Billy Tommy Andy Benny Jake Jimmy Jim James Dave Danny Henry Pete Bobby Peter Gary Leo George Joey Fred Mike Toby Oliver".split()
_SWAP = re.compile(r"\b(?:%s)\b" % "|".join(SWAP_F + SWAP_M))


def vary(story, rng):
    """The same story with other names (each name is changed everywhere, to one not in the story)."""
    from generate_stories import BOYS, GIRLS
    found = list(dict.fromkeys(_SWAP.findall(story)))
    if not found:
        return story
    f = [n for n in SWAP_F + GIRLS if n not in story]
    m = [n for n in SWAP_M + BOYS if n not in story]
    to = {}
    for name in found:
        if rng.random() < 0.75:
            pool = f if name in SWAP_F else m
            to[name] = pool.pop(rng.randrange(len(pool)))
    return _SWAP.sub(lambda x: to.get(x.group(0), x.group(0)), story)


def train_tokenizer(texts, path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.post_processor = processors.TemplateProcessing(
        single=BOS + " $A", pair=BOS + " $A " + BOS + ":1 $B:1", special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)])
    assert tok.get_vocab_size() == CONFIG["vocab_size"], tok.get_vocab_size()
    tok.save(path)
    return tok


_TOK = None


def _init_worker(path):
    global _TOK
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer
    _TOK = Tokenizer.from_file(path)


def _ids(stories):
    """Stories to one stream of BOS story EOS, and each story's length."""
    out, lens = [], []
    for e in _TOK.encode_batch(stories):
        out.extend(e.ids)
        out.append(EOS_ID)
        lens.append(len(e.ids) + 1)
    return np.array(out, np.int16), np.array(lens, np.int32)


def _ids_synthetic(job):
    from generate_stories import story
    seed, first, count = job
    return _ids([story("%d/%d" % (seed, i)) for i in range(first, first + count)])


def _ids_real(job):
    stories, seed = job
    rng = random.Random(seed)
    return _ids([vary(s, rng) for s in stories] if seed else stories)


def join(parts):
    parts = list(parts)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


# ---------------------------------------------------------------- 4-bit groups

def quantize_np(w):
    """Codes 1..15 and f16 scales with w ~ scale * (code - 8), groups of 32 along the input."""
    g = w.astype(np.float32).reshape(w.shape[0], -1, GROUP)
    s = (np.abs(g).max(-1) / 7).astype(np.float16)
    safe = np.where(s == 0, 1, s.astype(np.float32))[..., None]
    q = np.clip(np.rint(g / safe), -7, 7).astype(np.int8)
    return q.reshape(w.shape), s


def dequantize_np(q, s):
    g = q.astype(np.float32).reshape(q.shape[0], -1, GROUP)
    return (g * s.astype(np.float32)[..., None]).reshape(q.shape)


def pack(state, path):
    """Write every matrix as nibbles and scales, every vector as f32."""
    out = {}
    for k, w in state.items():
        if w.ndim == 2:
            q, s = quantize_np(w)
            c = (q + 8).astype(np.uint8)
            out[k + "|codes"], out[k + "|scales"] = c[:, 0::2] | (c[:, 1::2] << 4), s
        else:
            out[k] = w.astype(np.float32)
    np.savez(path, **out)


def unpack(path):
    data, state = np.load(path), {}
    for k in data.files:
        if k.endswith("|codes"):
            c = data[k]
            q = np.empty((c.shape[0], c.shape[1] * 2), np.int8)
            q[:, 0::2], q[:, 1::2] = (c & 15).astype(np.int8) - 8, (c >> 4).astype(np.int8) - 8
            state[k[:-6]] = dequantize_np(q, data[k[:-6] + "|scales"])
        elif not k.endswith("|scales"):
            state[k] = data[k]
    return state


def export(packed, tokenizer, hf):
    from safetensors.numpy import save_file
    os.makedirs(hf, exist_ok=True)
    state = unpack(packed)
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in state.items()}, os.path.join(hf, "model.safetensors"), {"format": "pt"})
    with open(tokenizer, encoding="utf-8") as f:
        tok = f.read()
    with open(os.path.join(hf, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(tok)

    def dump(name, value):
        with open(os.path.join(hf, name), "w") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    dump("config.json", CONFIG)
    dump("generation_config.json", GENERATION)
    dump("tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=BOS, eos_token=EOS,
                                       model_max_length=CONFIG["max_position_embeddings"], clean_up_tokenization_spaces=False))
    n = sum(v.size for v in state.values())
    print("parameters", n, "bytes at 4 bits", sum(v.size * 9 // 16 if v.ndim == 2 else v.size * 4 for v in state.values()))


# ---------------------------------------------------------------- training

def run(a):
    t0 = time.time()
    import multiprocessing
    import torch
    import torch.nn.functional as F
    from torch import nn
    import generate_stories

    def say(*words):
        print("%6.1fs" % (time.time() - t0), *words, flush=True)

    os.makedirs(a.out, exist_ok=True)
    torch.manual_seed(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    C, dev = CONFIG, "cuda"
    log = dict(args=vars(a), evals=[])

    # -- tokenizer and data
    train_real, held = real_split(a.real, a.held_out)
    say("real stories:", len(train_real), "train,", len(held), "held out")
    workers = a.workers or os.cpu_count()
    with multiprocessing.Pool(workers) as pool:
        sample = pool.map(generate_stories.story, ["%d/tok/%d" % (a.seed, i) for i in range(a.tokenizer_stories)], chunksize=50)
    tok_path = os.path.join(a.out, "tokenizer.json")
    tok = train_tokenizer(train_real + sample, tok_path)
    say("tokenizer trained")
    with multiprocessing.get_context("spawn").Pool(workers, _init_worker, (tok_path,)) as pool:
        syn = join(pool.imap(_ids_synthetic, [(a.seed, i, 500) for i in range(0, a.synthetic_stories, 500)]))
        real = join(pool.imap(_ids_real, [(train_real, 1000 * a.seed + k) for k in range(1, a.real_versions + 1)]))
        val_real = join([pool.apply(_ids_real, ((held, 0),))])
        val_syn = join([pool.apply(_ids_synthetic, ((a.seed + 10 ** 6, 0, 300),))])
    say("tokens: synthetic", len(syn[0]), "real", len(real[0]), "=", a.real_versions, "x", len(real[0]) // a.real_versions,
        "val", len(val_real[0]), len(val_syn[0]))
    log["tokens"] = dict(synthetic=len(syn[0]), real=len(real[0]), real_versions=a.real_versions)

    T = a.context

    class Stream:
        """Rows of T + 1 tokens, each beginning at the start of a story."""

        def __init__(self, ids, lens):
            self.ids = torch.from_numpy(ids.astype(np.int64).astype(np.int16)).to(dev)
            starts = np.concatenate([[0], np.cumsum(lens)[:-1]])
            starts = starts[starts + T + 1 <= len(ids)]
            self.starts = torch.from_numpy(starts).to(dev)
            self.steps = torch.arange(T + 1, device=dev)
            self.perm, self.at = None, 0

        def rows(self, n):
            if self.perm is None or self.at + n > len(self.perm):
                self.perm, self.at = torch.randperm(len(self.starts), device=dev), 0
            pick = self.starts[self.perm[self.at:self.at + n]]
            self.at += n
            return self.ids[pick[:, None] + self.steps].long()

    data_syn, data_real = Stream(*syn), Stream(*real)

    def val_rows(pair):
        ids, lens = pair
        rows, at = [], 0
        for n in lens:                       # one story a row: what the product does
            row = ids[at:at + n][:T + 1].astype(np.int64)
            rows.append(np.pad(row, (0, T + 1 - len(row)), constant_values=-1))
            at += n
        return torch.from_numpy(np.stack(rows)).to(dev)

    vals = dict(real=val_rows(val_real), synthetic=val_rows(val_syn))

    # -- model, with Hugging Face's names
    alpha = torch.zeros((), device=dev)      # 0: float weights, 1: 4-bit weights (straight-through)

    fake = [True]                            # False once the weights themselves are 4-bit values

    def fq(w):
        if not fake[0]:
            return w
        with torch.no_grad():
            g = w.detach().float().reshape(w.shape[0], -1, GROUP)
            s = (g.abs().amax(-1, keepdim=True) / 7).half().float()
            q = torch.clamp(torch.round(g / torch.where(s == 0, torch.ones_like(s), s)), -7, 7)
            d = (q * s).reshape(w.shape) - w
        return w + alpha * d

    class Linear(nn.Linear):
        def __init__(self, i, o):
            super().__init__(i, o, bias=False)

        def forward(self, x):
            return F.linear(x, fq(self.weight))

    class Norm(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(n))

        def forward(self, x):
            x32 = x.float()
            return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + C["rms_norm_eps"]) * self.weight).to(x.dtype)

    H, D, KV, HD, I = C["hidden_size"], C["head_dim"], C["num_key_value_heads"], C["num_attention_heads"], C["intermediate_size"]
    inv = 1.0 / (C["rope_theta"] ** (torch.arange(0, D, 2).float() / D))
    ang = torch.outer(torch.arange(C["max_position_embeddings"]).float(), inv)
    cos, sin = torch.cat([ang, ang], -1).cos().to(dev), torch.cat([ang, ang], -1).sin().to(dev)

    def rope(x, n):
        half = torch.cat([-x[..., D // 2:], x[..., :D // 2]], -1)
        return (x * cos[:n].to(x.dtype) + half * sin[:n].to(x.dtype))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.k_proj = Linear(H, HD * D), Linear(H, KV * D)
            self.v_proj, self.o_proj = Linear(H, KV * D), Linear(HD * D, H)

        def forward(self, x):
            b, n, _ = x.shape
            q = rope(self.q_proj(x).view(b, n, HD, D).transpose(1, 2), n)
            k = rope(self.k_proj(x).view(b, n, KV, D).transpose(1, 2), n)
            v = self.v_proj(x).view(b, n, KV, D).transpose(1, 2)
            k, v = k.repeat_interleave(HD // KV, 1), v.repeat_interleave(HD // KV, 1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.o_proj(y.transpose(1, 2).reshape(b, n, HD * D))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = Linear(H, I), Linear(H, I), Linear(I, H)

        def forward(self, x):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.self_attn, self.mlp = Attention(), Mlp()
            self.input_layernorm, self.post_attention_layernorm = Norm(H), Norm(H)

        def forward(self, x):
            x = x + F.dropout(self.self_attn(self.input_layernorm(x)), a.dropout, self.training)
            return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), a.dropout, self.training)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed_tokens = nn.Embedding(C["vocab_size"], H)
            self.layers = nn.ModuleList(Block() for _ in range(C["num_hidden_layers"]))
            self.norm = Norm(H)
            for name, p in self.named_parameters():
                if p.ndim == 2:
                    scale = 0.02 / math.sqrt(2 * C["num_hidden_layers"]) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                    nn.init.normal_(p, 0, scale)

        def forward(self, ids, targets=None):
            e = fq(self.embed_tokens.weight)
            x = F.dropout(F.embedding(ids, e), a.dropout, self.training)
            for layer in self.layers:
                x = layer(x)
            logits = F.linear(self.norm(x), e)
            if targets is None:
                return logits
            return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-1)

    model = Model().to(dev)
    n_params = sum(p.numel() for p in model.parameters())
    say("parameters:", n_params)
    mats = [p for p in model.parameters() if p.ndim == 2]
    vecs = [p for p in model.parameters() if p.ndim != 2]
    opt = torch.optim.AdamW([dict(params=mats, weight_decay=0.1), dict(params=vecs, weight_decay=0.0)], lr=a.lr, betas=(0.9, 0.95), fused=True)
    fast = torch.compile(model) if a.compile else model

    def loss_of(rows, net, noisy=0):
        """`noisy` first rows get some of their input tokens (never BOS) replaced: a regulariser for the real text."""
        ids = rows[:, :-1].clamp(min=0)
        if noisy and a.noise:
            part = ids[:noisy]
            hit = (torch.rand(part.shape, device=dev) < a.noise) & (part > EOS_ID)
            ids = torch.cat([torch.where(hit, torch.randint_like(part, 2, C["vocab_size"]), part), ids[noisy:]])
        with torch.autocast("cuda", torch.bfloat16):
            return net(ids, rows[:, 1:])

    @torch.no_grad()
    def evaluate():
        model.eval()
        out = {}
        for k, rows in vals.items():
            total = count = 0
            for i in range(0, len(rows), 50):
                r = rows[i:i + 50]
                n = int((r[:, 1:] >= 0).sum())
                total, count = total + float(loss_of(r, model)) * n, count + n
            out[k] = total / count
        model.train()
        return out

    @torch.no_grad()
    def generate(prompts, n, temperature=0.0, top_k=40, top_p=0.95, seed=0):
        """Continue token lists of any lengths, each until EOS."""
        model.eval()
        gen = torch.Generator(device=dev).manual_seed(seed)
        b, width = len(prompts), max(len(p) for p in prompts) + n
        ids = torch.full((b, width), EOS_ID, device=dev)
        length = torch.tensor([len(p) for p in prompts], device=dev)
        for i, p in enumerate(prompts):
            ids[i, :len(p)] = torch.tensor(p, device=dev)
        done = torch.zeros(b, dtype=torch.bool, device=dev)
        where = torch.arange(b, device=dev)
        for step in range(n):
            with torch.autocast("cuda", torch.bfloat16, enabled=temperature > 0):
                logits = model(ids[:, :int(length.max())])[where, length - 1].float()
            if temperature == 0:
                nxt = logits.argmax(-1)
            else:
                v, ix = (logits / temperature).topk(top_k, -1)
                p = v.softmax(-1)
                p = torch.where(p.cumsum(-1) - p > top_p, torch.zeros_like(p), p)
                nxt = ix.gather(1, torch.multinomial(p / p.sum(-1, keepdim=True), 1, generator=gen))[:, 0]
            ids[where, length] = torch.where(done, ids[where, length], nxt)
            done = done | (nxt == EOS_ID)
            length = torch.where(done, length, length + 1)
            if bool(done.all()) or int(length.max()) >= min(width, C["max_position_embeddings"]):
                break
        model.train()
        return [ids[i, :int(length[i])].tolist() for i in range(b)], done.tolist()

    def state():
        s = {("model." + k): v.detach().float().cpu().numpy() for k, v in model.state_dict().items()}
        return s

    # -- the loop; the schedule is a function of the share of the time that has passed
    budget, step, start, tokens = a.minutes * 60, 0, None, 0
    last_eval, last_print, seen_real = 0.0, 0.0, 0
    while True:
        if step == 3:                        # compilation is over
            torch.cuda.synchronize()
            start = last_eval = time.time()
        now = time.time()
        frac = 0.0 if start is None else (now - start) / budget
        if frac >= 1 or (a.max_steps and step >= a.max_steps):
            break
        lr = a.lr * min(1.0, (step + 1) / a.warmup)
        if frac > a.decay_from:
            x = (frac - a.decay_from) / (1 - a.decay_from)
            lr = a.lr * (1 - x) + 0.02 * a.lr * x
        alpha.fill_(min(1.0, max(0.0, (frac - a.qat_from) / 0.04)))
        share = a.real_share if frac < a.decay_from else a.real_share_end
        n_real = int(a.batch * share + random.random())
        rows = torch.cat([data_real.rows(n_real), data_syn.rows(a.batch - n_real)]) if n_real else data_syn.rows(a.batch)
        seen_real += n_real * T
        for group in opt.param_groups:
            group["lr"] = lr
        loss = loss_of(rows, fast, n_real)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        tokens += a.batch * T
        if step % 20 == 0:
            loss_v = float(loss.detach())             # also keeps the queue short
            if time.time() - last_eval > a.eval_every:
                ev = evaluate()
                log["evals"].append(dict(step=step, frac=round(frac, 4), loss=loss_v, lr=lr, alpha=float(alpha), tokens=tokens, real_tokens=seen_real, **ev))
                say("step %d %.0f%% lr %.1e alpha %.2f loss %.3f | val real %.4f synthetic %.4f | %.0fM tokens, real %.1fM, %.2fM/s" % (
                    step, frac * 100, lr, float(alpha), loss_v, ev["real"], ev["synthetic"], tokens / 1e6, seen_real / 1e6,
                    tokens / 1e6 / max(1e-9, time.time() - (start or t0))))
                last_eval = time.time()
                with open(os.path.join(a.out, "log.json"), "w") as f:
                    json.dump(log, f, indent=1)
                if frac > 0.3:
                    pack(state(), os.path.join(a.out, "packed.npz"))

    # -- results, all from the 4-bit weights
    alpha.fill_(0.0)
    ev_float = evaluate()
    pack(state(), os.path.join(a.out, "packed.npz"))
    back = unpack(os.path.join(a.out, "packed.npz"))
    fake[0] = False
    model.load_state_dict({k[6:]: torch.from_numpy(v) for k, v in back.items()})
    ev = evaluate()
    say("final: float %s, 4-bit %s; %d steps, %.0fM tokens, real %.1fM" % (ev_float, ev, step, tokens / 1e6, seen_real / 1e6))
    log.update(parameters=n_params, final_float=ev_float, final_4bit=ev, steps=step, tokens_seen=tokens, real_tokens_seen=seen_real, seconds=time.time() - t0)

    out = ["Samples from the 4-bit weights.\n"]
    prompts = ["", "Once upon a time, there was a little fox who", "Once upon a time", "One day, a girl named Lily", "The dragon was sad because",
               "Tom and his dog went to the beach.", "There was a robot who wanted to", "In a small village by the sea,"]
    enc = [tok.encode(p).ids for p in prompts]
    greedy, done = generate(enc, a.sample_tokens)
    for p, ids, d in zip(prompts, greedy, done):
        out.append("=== greedy, prompt %r%s\n%s\n" % (p, "" if d else " (not ended)", tok.decode(ids)))
    out.insert(1, "greedy ids for %r:\n%s\n" % (prompts[1], greedy[1]))
    for t in (0.7, 0.9):
        got, done = generate([enc[0]] * 12 + [e for e in enc[1:] for _ in range(2)], a.sample_tokens, t, seed=7)
        for p, ids, d in zip([""] * 12 + [p for p in prompts[1:] for _ in range(2)], got, done):
            out.append("=== temperature %.1f, top_k 40, top_p 0.95, prompt %r%s\n%s\n" % (t, p, "" if d else " (not ended)", tok.decode(ids)))
    with open(os.path.join(a.out, "samples.txt"), "w") as f:
        f.write("\n".join(out))
    with open(os.path.join(a.out, "log.json"), "w") as f:
        json.dump(log, f, indent=1)
    say("samples written")

    if a.check:
        from transformers import LlamaConfig, LlamaForCausalLM
        hf = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in C.items() if k not in ("architectures", "model_type", "torch_dtype")}))
        missing = hf.load_state_dict({k: torch.from_numpy(v) for k, v in back.items()}, strict=False)
        torch.backends.cuda.matmul.allow_tf32 = False
        hf, ids = hf.to(dev).eval(), vals["real"][:4, :100]
        model.eval()
        with torch.no_grad():
            say("against transformers: missing", missing, "max difference of logits", float((hf(ids).logits - model(ids)).abs().max()))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sub = ap.add_subparsers(dest="verb", required=True)
    r = sub.add_parser("run")
    r.add_argument("--real", required=True, help="stories separated by <|endoftext|>")
    r.add_argument("--held-out", required=True, help="those of them that are kept out, as validation")
    r.add_argument("--out", required=True)
    r.add_argument("--minutes", type=float, default=7.0, help="training time; the schedule follows it")
    r.add_argument("--max-steps", type=int, default=0)
    r.add_argument("--seed", type=int, default=1)
    r.add_argument("--workers", type=int, default=0)
    r.add_argument("--synthetic-stories", type=int, default=200000)
    r.add_argument("--tokenizer-stories", type=int, default=3000)
    r.add_argument("--real-versions", type=int, default=40)
    r.add_argument("--real-share", type=float, default=0.06)
    r.add_argument("--real-share-end", type=float, default=0.15)
    r.add_argument("--context", type=int, default=512)
    r.add_argument("--batch", type=int, default=128)
    r.add_argument("--lr", type=float, default=1.5e-3)
    r.add_argument("--warmup", type=int, default=200)
    r.add_argument("--dropout", type=float, default=0.2)
    r.add_argument("--noise", type=float, default=0.05, help="share of replaced input tokens in the real text")
    r.add_argument("--decay-from", type=float, default=0.55)
    r.add_argument("--qat-from", type=float, default=0.7)
    r.add_argument("--eval-every", type=float, default=20.0)
    r.add_argument("--sample-tokens", type=int, default=380)
    r.add_argument("--no-compile", dest="compile", action="store_false")
    r.add_argument("--check", action="store_true", help="compare with transformers' LlamaForCausalLM")
    e = sub.add_parser("export")
    e.add_argument("--packed", required=True)
    e.add_argument("--tokenizer", required=True)
    e.add_argument("--hf", required=True)
    a = ap.parse_args()
    if a.verb == "run":
        run(a)
    else:
        export(a.packed, a.tokenizer, a.hf)


if __name__ == "__main__":
    main()
