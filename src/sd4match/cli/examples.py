"""Examples below the help of each command, and notes below the help of the program.

An example is (description, words after `sd4match`). Photos in examples are those that `sd4match demo` writes.
"""

from __future__ import annotations

from collections.abc import Mapping

Example = tuple[str, str]

EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        ("Learn a prompt in three minutes, with no download", "demo"),
        ("Find points of one photo in another", "match demo/source.png demo/target.png"),
        ("What is installed, and what is missing", "doctor"),
    ),
    "match": (
        ("A grid of points on mini", "match demo/source.png demo/target.png"),
        ("Two points, by a learned prompt",
         "match demo/source.png demo/target.png --point 60,48 --point 32,64 \\\n"
         "      --prompt demo/single.safetensors --output matches"),
        ("How similar every place is to a point, under two prompts",
         "match demo/source.png demo/target.png --point 60,48 --draw heat \\\n"
         "      --compare empty --prompt demo/single.safetensors --output heat"),
        ("Real photos on Stable Diffusion 2.1, which is downloaded once",
         "match a.jpg b.jpg --backbone sd2-1 --category cat"),
    ),
    "train": (
        ("One prompt for all categories of drawings, on mini", "train --preset single --output runs/single"),
        ("A shorter and smaller one", "train --steps 20 --set prompt.num_tokens=10 --output runs/short"),
        ("Go on where a training was stopped", "train --resume runs/single"),
        ("The paper's conditional prompt on SPair-71k",
         "train --preset sd2-1-cpm --dataset spair --root SPair-71k"),
    ),
    "evaluate": (
        ("The text template on held-out pairs, on mini", "evaluate --limit 40"),
        ("A learned prompt against text",
         "evaluate --prompt demo/single.safetensors --against text \\\n      --limit 40 --output runs/learned"),
        ("Chance, which needs no model", "evaluate --dataset synthetic --baseline random --output runs/chance"),
        ("Plots and the worst and best pairs",
         "evaluate --limit 40 --draw categories --draw pairs \\\n      --output runs/drawn"),
        ("PCK at 0.1 for a script",
         "evaluate --limit 40 --json | jq '.results[0].pck.image[\"0.1\"]'"),
    ),
    "extract": (
        ("Features of photos, one file each", "extract demo/source.png demo/target.png --output features"),
        ("Under a learned prompt",
         "extract demo/source.png --prompt demo/single.safetensors \\\n      --output learned"),
    ),
    "report": (
        ("One page of the demo, with its worst and best pairs", "report demo"),
        ("Without pictures of pairs, in another file", "report demo --pairs 0 --output demo.html"),
    ),
    "compare": (
        ("Two reports on the same pairs", "compare runs/learned runs/evaluate"),
        ("Two rows of one report", "compare demo demo --row-a single --row-b text"),
    ),
    "demo": (
        ("Learn a prompt, measure it, draw it", "demo"),
        ("Another initial prompt, in a folder of its own", "demo --seed 1 --output demo-1"),
    ),
    "components": (
        ("Everything that an experiment can be composed of", "components"),
        ("The matchers and their fields, for a script", "components matcher --json"),
    ),
    "doctor": (
        ("What is installed, and what is missing", "doctor"),
        ("The same for a script", "doctor --json"),
    ),
    "prompts": (
        ("What a prompt file holds", "prompts inspect demo/single.safetensors"),
        ("What it makes the model draw", "prompts imagine demo/single.safetensors --steps 10"),
    ),
    "prompts inspect": (
        ("What a prompt file holds", "prompts inspect demo/single.safetensors"),
        ("The same for a script", "prompts inspect demo/single.safetensors --json"),
    ),
    "prompts convert": (
        ("A prompt that SD4Match published", "prompts convert asset/prompts/single --output single.safetensors"),
    ),
    "prompts export": (
        ("A textual inversion for diffusers",
         "prompts export demo/single.safetensors --output embeds.safetensors"),
    ),
    "prompts imagine": (
        ("Four images of the prompt and of the empty one",
         "prompts imagine demo/single.safetensors --steps 10"),
        ("Beside the text template of a category",
         "prompts imagine demo/single.safetensors --steps 10 \\\n"
         "      --category fish --output fish.png"),
    ),
    "sweep": (
        ("Every kind of prompt with few steps", "sweep prompts --steps 30"),
        ("Any field", "sweep evaluation.sampling.timestep=0,40,100 --preset text"),
    ),
    "sweep fields": (
        ("PCK over the timestep, with a plot",
         "sweep evaluation.sampling.timestep=0,40,100 --preset text \\\n      --output runs/timesteps"),
        ("Learning rates with three seeds each",
         "sweep learning_rate=0.001,0.01 seed=0:2:1 --preset single \\\n      --steps 30 --output runs/rates"),
    ),
    "sweep prompts": (
        ("Two kinds with few steps", "sweep prompts --only text --only single --steps 10 --output runs/two"),
        ("One more row, with any field changed",
         "sweep prompts --only single --steps 10 --output runs/three \\\n"
         "      --with 'short={prompt: {num_tokens: 5}}'"),
    ),
    "reproduce": (
        ("What there is", "reproduce --list"),
        ("One figure in little time, on mini", "reproduce fig3a --steps 2 --pairs 16 --seeds 0 --output runs/little"),
        ("All tables and figures on mini, in a reduced form", "reproduce all"),
        ("A table on Stable Diffusion 2.1, as in the paper",
         "reproduce table2 --on sd2-1 --dataset spair --root SPair-71k"),
    ),
    "app": (
        ("Two photos in the browser, on mini", "app"),
        ("With a learned prompt to compare", "app --prompt demo/single.safetensors --port 8080"),
        ("Real photos on Stable Diffusion 2.1, which is downloaded once", "app --backbone sd2-1"),
        ("Mark corresponding points on your own photos", "app --annotate photos --category cat"),
    ),
    "data": (
        ("Write drawings in SPair-71k's layout", "data make-synthetic drawings --pairs 20 --photos 4"),
        ("Find what is missing or damaged in a data set", "data check spair SPair-71k"),
    ),
    "data make-synthetic": (
        ("A small data set of drawings", "data make-synthetic drawings --pairs 20 --photos 4"),
    ),
    "data check": (
        ("Every pair and every photo", "data check spair SPair-71k"),
        ("One split, for a script", "data check spair SPair-71k --split test --json"),
    ),
    "models": (
        ("Known models, and which are here", "models list"),
        ("Load one and extract features", "models check mini"),
    ),
    "models list": (
        ("Known models, and which are here", "models list"),
        ("Where they are, for a script", "models list --json"),
    ),
    "models check": (
        ("The model that comes with the package", "models check mini"),
        ("Stable Diffusion 2.1 at a smaller size", "models check sd2-1 --set image_size=512 --dtype float16"),
    ),
    "cache": (
        ("Where the cache is, and its size", "cache info"),
        ("Free its space; all of it is computed again", "cache clear"),
    ),
    "cache info": (
        ("Where the cache is, and its size", "cache info"),
        ("Another cache, for a script", "cache info --folder scratch --json"),
    ),
    "cache clear": (
        ("Free its space; all of it is computed again", "cache clear"),
    ),
    "new": (
        ("A package with a prompt, a matcher and a loss", "new plugin sd4match-mine"),
    ),
    "new plugin": (
        ("A package with a prompt, a matcher and a loss", "new plugin sd4match-mine"),
        ("In another folder", "new plugin sd4match-other --output plugins/other"),
    ),
}  # fmt: skip
"""Examples by the words of the command; "" is the program."""

NOTES: Mapping[str, Mapping[str, str]] = {
    "": {
        "Exit codes": "0 done; 1 `data check` found problems, or the reader of the output has gone; 2 an error, named "
        "in one line on stderr; 129, 130, 143 stopped by SIGHUP, Ctrl-C or SIGTERM.",
        "More": "Results are on stdout, progress and errors on stderr; --json prints one document. NO_COLOR and "
        "TERM=dumb are respected.",
    }
}
"""Paragraphs by the words that call the command, by their titles."""
