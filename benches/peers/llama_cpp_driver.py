"""llama.cpp (the xllamacpp wheel): clear decode speed of the same GGUF, greedy, one sequence."""

from importlib.metadata import version

import xllamacpp as xlc

from driver import now_ms, serve

state = {}


def setup(model, threads, context):
    params = xlc.CommonParams()
    params.model.path = model
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = True
    start = now_ms()
    state["server"] = xlc.Server(params)
    return {"keygen_ms": 0.0, "load_ms": now_ms() - start, "version": version("xllamacpp"), "precision": "the GGUF's own"}


def run(prompt="The three largest cities of France are", tokens=64):
    answer = state["server"].handle_completions(
        {"prompt": prompt, "n_predict": tokens, "max_tokens": tokens, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    )
    timings = answer["timings"]
    text = answer["choices"][0]["text"] if "choices" in answer else answer["content"]
    return {
        "decode_ms_per_token": timings["predicted_per_token_ms"],
        "prompt_ms_per_token": timings["prompt_per_token_ms"],
        "tokens": timings["predicted_n"],
        "text": text,
    }


serve({"setup": setup, "run": run})
