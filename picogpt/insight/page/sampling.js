"use strict";

// From logits to the probabilities of the next token, as picogpt/sampling.py and OpenAI's sample.py have it:
// temperature, then top-k, then top-p.
//
// `logits` are the largest ones, in descending order. `tail` stands for all others: bins of {logit, count}, descending.
// The result has the probability of each of `logits`, 0 if it is dropped, and the probability of the tail as `rest`.

function distribution(logits, tail, { temperature = 1, k = 0, p = 1 }) {
  if (temperature === 0) return greedy(logits);
  const bin = (logit, count) => ({ logit, count, each: Math.exp((logit - logits[0]) / temperature) });
  const all = Array.from(logits, (logit) => bin(logit, 1)).concat(tail.map(({ logit, count }) => bin(logit, count)));
  return normalized(topP(topK(all, logits, k), p), logits.length);
}

function greedy(logits) {
  const probabilities = new Array(logits.length).fill(0);
  probabilities[0] = 1;
  return { probabilities, rest: 0, kept: 1 };
}

// Drop every logit below the k-th largest. Ties with it stay; k = 0 drops nothing.
function topK(all, logits, k) {
  if (k === 0 || k > logits.length) return all;
  return all.slice(0, logits.length).filter((_, i) => logits[i] >= logits[k - 1]);
}

// Keep the likeliest while their sum is at most p, and at least one. The one that crosses p is dropped; ties with the
// last one kept stay; p = 1 drops nothing. A bin of the tail may be kept in part.
function topP(all, p) {
  if (p >= 1) return all;
  const limit = p * total(all);
  const kept = [];
  let sum = 0;
  for (const { logit, each, count } of all) {
    const fit = Math.min(count, Math.floor((limit - sum) / each + 1e-9));
    const tied = kept.length > 0 && logit === kept.at(-1).logit;
    const n = kept.length === 0 || tied ? Math.max(fit, 1) : fit;
    if (n <= 0) break;
    kept.push({ logit, each, count: n });
    sum += n * each;
  }
  return kept;
}

function normalized(kept, n) {
  const sum = total(kept);
  const probabilities = new Array(n).fill(0);
  kept.slice(0, n).forEach(({ each }, i) => (probabilities[i] = each / sum));
  const count = kept.reduce((count, bin) => count + bin.count, 0);
  return { probabilities, rest: total(kept.slice(n)) / sum, kept: count };
}

function total(bins) {
  return bins.reduce((sum, { each, count }) => sum + each * count, 0);
}
