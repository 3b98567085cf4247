/* recipe.h - one stage of training, read from YAML.
 *
 *     stage: rank
 *     seed: 1
 *     bundle: deploy/demo/recipes/bundle.json     templates, labels, encoders, as in docs/bundle.md
 *     parts:
 *       - {name: llm, from: build/demo/train/lm}
 *       - {name: encoder, from: build/demo/train/encoder}
 *       - {name: item_projector, new: linear}
 *     freeze: ["encoder.*"]
 *     data:
 *       items: build/demo/catalogue/items.jsonl
 *       lists: [{file: build/demo/catalogue/queries.jsonl, tasks: [E1-cold, D1-cold], weight: 1}]
 *     losses: [{kind: listwise, weight: 1}]
 *     steps: 4000
 *     batch: 16
 *     optimizer: {rate: 1e-3, warm_up: 200, weight_decay: 0.05, clip: 1}
 *     checkpoint: {minutes: 5, keep: 2}
 *
 * A key that is not known is refused with the nearest known one; so are a value of another type, a
 * number out of bounds, and a key that the stage does not read: a recipe that says what it cannot
 * do is wrong. docs/training.md explains every key. Relative paths are relative to the working
 * directory, as on a command line.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_RECIPE_H
#define MR_RANKER_TRAINING_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "ranker/training/bpe.h"

typedef enum {
    MR_STAGE_BPE,         /* texts -> tokenizer.json */
    MR_STAGE_NEXT_TOKEN,  /* texts -> llm */
    MR_STAGE_CONTRASTIVE, /* pairs, lists, baskets -> encoder: InfoNCE */
    MR_STAGE_RANK,        /* lists -> llm, projectors, encoder, user encoder */
    MR_STAGE_USER,        /* baskets -> user encoder: leave one out, sampled softmax */
    MR_STAGE_CAPTION,     /* pictures with texts -> projector, llm: LLaVA's two stages */
    MR_STAGE_COUNT
} mr_stage_kind;

typedef enum {
    MR_LOSS_NEXT_TOKEN,
    MR_LOSS_INFO_NCE, /* temperature */
    MR_LOSS_YES_NO,   /* grades / highest grade as soft labels: BCE, which is KL up to a constant */
    MR_LOSS_LISTWISE, /* gains 2^grade - 1 */
    MR_LOSS_DISTILL,  /* KL(teacher || student) over the list: temperature */
    MR_LOSS_ALIGN,    /* alpha KL(text || vectors) + beta (1 - cos of last states), the same llm */
    MR_LOSS_SAMPLED_SOFTMAX, /* temperature */
    MR_LOSS_COUNT
} mr_loss_kind;

typedef struct {
    mr_loss_kind kind;
    double weight;      /* in the first phase */
    double weight_late; /* in the second; by default weight */
    double temperature; /* of distill 1; of info_nce and sampled_softmax 0.05 */
    double alpha, beta; /* of align: 1, 1 */
} mr_recipe_loss;

/* A part of the model: from a folder or file, or new. */
typedef struct {
    char *name; /* "llm", "encoder", "item_projector", "user", "user_projector", "vision",
                   "image_projector", "teacher", "teacher_projector" */
    char *from; /* folder with config.json and model.safetensors, or a .safetensors file; or NULL */
    char *made; /* YAML key "new": "linear", "mlp" for projectors; "decoder" for llm and encoder,
                   "perceiver" for user; or NULL */
    /* Shape of a new decoder (Qwen3's family) or user encoder. */
    int layers, width, heads, kv_heads, head_dim, ffn, vocab, latents;
    double deviation; /* 0.02; of projectors 1 / sqrt(in) */
    /* `layers` above those of `from`: new ones on top, which add little at first. share_qk: they
     * begin by attending to what is alike (trainer_parts.c). damp: what layers of the file add is
     * times this, so that vectors from outside pass them; 0: as it is. */
    bool share_qk;
    double damp;
    double scale; /* of a new linear projector between equal widths: it starts as scale x identity,
                   * without the gain of the encoder's final norm */
    /* Of a vision tower: tokens of a picture, a square (0: one for each patch, as LLaVA), and the
     * hidden state that they are made of: -2. */
    int tokens, feature_layer;
} mr_recipe_part;

typedef struct {
    char *file;   /* rows of queries.jsonl: query, history, candidates, grades or qrels */
    char **tasks; /* NULL: all */
    size_t n_tasks;
    double weight; /* share of the examples, relative to the other lists: 1 */
} mr_recipe_lists;

typedef struct {
    char **texts; /* JSONL with "text": next_token, bpe */
    size_t n_texts;
    char **pairs; /* JSONL with "a", "b", "section": contrastive */
    size_t n_pairs;
    char *items; /* JSONL with "id", "title", "text", "image" */
    char *users; /* JSONL with "id", "fold", "history" */
    mr_recipe_lists *lists;
    size_t n_lists;
    char *captions; /* JSONL with "image", "text", "prompt": caption */
    /* Shares beside the lists': of pairs (1), and of baskets (0: the people serve the check of
     * splits alone). In stage rank a basket is a list without a query: one item is taken out, and
     * other people's picks stand beside it. */
    double pairs_weight, users_weight;
    bool transductive; /* labels may name items of fold test: see lists.h */
} mr_recipe_data;

typedef struct {
    double rate;  /* peak */
    double floor; /* at the end, as a share of rate: 0.1 */
    int64_t warm_up;
    double weight_decay, beta1, beta2, eps;
    double clip; /* most gradient norm; 0: none */
} mr_recipe_optimizer;

typedef struct {
    double minutes; /* between checkpoints: 5 */
    int64_t steps;  /* or steps; 0: by time alone */
    int keep;       /* 2 */
} mr_recipe_checkpoint;

typedef struct {
    mr_stage_kind stage;
    uint64_t seed;
    char *bundle;    /* bundle.json before sealing: templates, labels, encoders */
    char *tokenizer; /* folder; by default the llm's or the encoder's */
    mr_recipe_part *part;
    size_t n_parts;
    char **freeze; /* globs over "part.name" */
    size_t n_freeze;
    mr_recipe_data data;
    mr_recipe_loss *loss;
    size_t n_losses;
    double second_phase; /* share of the steps after which weight_late holds: 1 = never */
    char *teacher;       /* bundle.json of the text side, for its templates: distill, align */

    int64_t steps;
    double epochs;  /* instead of steps, where the stage has a finite data set */
    int batch;      /* examples per step: windows, pairs, lists, people */
    int accumulate; /* micro-batches per step: 1 */
    int shards; /* parts of a batch that are computed apart: 4. Fixes the bits, not the threads */
    int max_tokens;       /* of a text, or of a window: 128 */
    int candidates;       /* per list: 32 */
    int history;          /* most items of a person: 32 */
    double user_dropout;  /* 0.15 */
    double query_dropout; /* 0 */
    double
        token_dropout;   /* share of a text's tokens that the encoder does not see in training: 0 */
    int64_t valid_every; /* steps between looks at the valid split; 0: never */

    mr_recipe_optimizer optimizer;
    mr_recipe_checkpoint checkpoint;

    /* bpe */
    int vocabulary;
    mr_bpe_words style; /* where words end: "gpt2", "qwen2" */
    bool lowercase;     /* the tokenizer reads texts in lower case */
    int min_frequency;  /* of a pair that is merged: 2 */
    char **special;
    size_t n_special;

    char digest[17]; /* XXH3 of what decides the run: resuming under another recipe is refused */
} mr_recipe;

MR_NODISCARD mr_status mr_recipe_load(mr_recipe **out, const char *path, mr_error *err);
/* The same from memory; name is for messages. */
MR_NODISCARD mr_status mr_recipe_parse(mr_recipe **out, const char *name, const char *text,
                                       size_t len, mr_error *err);
void mr_recipe_free(mr_recipe *recipe); /* NULL is fine */

const char *mr_stage_name(mr_stage_kind stage);
const char *mr_loss_name(mr_loss_kind kind);
/* The part of that name, or NULL. */
const mr_recipe_part *mr_recipe_find_part(const mr_recipe *recipe, const char *name);

#endif
