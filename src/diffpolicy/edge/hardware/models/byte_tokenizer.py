"""Tokenizers made in memory, for pipelines with random weights: one token a byte, so that no vocabulary is needed."""

from __future__ import annotations

from typing import Any

from diffpolicy.edge.hardware.optional import need

START, END = "<|startoftext|>", "<|endoftext|>"


def byte_vocabulary() -> dict[str, int]:
    """A token for each byte in the middle and at the end of a word, then start and end."""
    alphabet = sorted(need("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet), START, END]
    return {token: number for number, token in enumerate(tokens)}


def special_ids() -> dict[str, int]:
    """What a text encoder's config must know of the vocabulary: CLIP takes its pooled output at the end token."""
    vocabulary = byte_vocabulary()
    return {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}


def byte_tokenizer(length: int) -> Any:
    """A tokenizer with the interface of CLIP's and T5's. Args: length: tokens of the longest text that it takes."""
    tokenizers = need("tokenizers")
    vocabulary = byte_vocabulary()
    core = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token=END, end_of_word_suffix="</w>")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return need("transformers").PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=length,
    )
