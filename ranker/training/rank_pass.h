/* rank_pass.h - lists through a ranker and back: prompts, embedding tokens, user encoder,
 * projector, decoder, margins. A student is one, a frozen teacher another.
 *
 * Prompts are those of serving: the same templates, budgets and history. One span is the prefix of
 * a list, its children the candidates; vectors go in the order of their rows.
 * Private to ranker/training. Threads: one pass, one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_RANK_PASS_H
#define MR_RANKER_TRAINING_RANK_PASS_H

#include "ranker/training/item_table.h"
#include "ranker/training/rank_draw.h"
#include "ranker/training/trainer_private.h"

typedef struct {
    const mr_trainer *trainer;
    const mr_trainer_spec *spec;
    const mr_trainer_part *llm, *item_projector, *user_projector; /* the last may be the items' */
    const mr_lists *lists;

    mr_decoder_f32 *run;
    mr_projector_train_f32 *items, *users; /* users: NULL where items' serves */
    size_t max_length; /* of a prompt: the bundle's, or the llm's positions where they are fewer */
    size_t max_rows;
    mr_prompt prefix, suffix;

    mr_pack pack;
    int32_t *ids;
    bool *wanted;
    mr_span *span;
    size_t max_spans;
    /* Vector rows in order: which item's token, through which projector. */
    uint32_t *vector_item;
    uint16_t *vector_token;
    bool *vector_is_user;
    float *raw_items, *raw_users; /* [vectors][dim], inputs of the projectors */
    /* Of users whose tokens come from the part `user`: see mr_rank_pass_encode_users. */
    const mr_trainer_part *user; /* NULL: they are the items' */
    mr_user_train_f32 *user_run;
    uint32_t *user_item; /* [history vectors / T] */
    size_t *user_rows;   /* [max_lists] history vectors of each user */
    size_t n_users, n_user_items;
    float *user_in, *d_user_in; /* [history vectors][dim] */
    const float *user_out;      /* [users][latents][C of the encoder] */
    float *d_user_out;
    float *vectors, *d_vectors; /* [vectors][C] */
    float *d_part, *d_raw;      /* [vectors][C], [vectors][dim]: scratch on the way back */
    size_t n_vectors;

    size_t *first; /* [lists + 1] output rows of each list */
    size_t n_lists;
    const float *out; /* [candidates][C] */
    float *margin;    /* [candidates] */
    float *d_margin;  /* [candidates], for the caller to fill */
    float *d_out;     /* [candidates][C] */
} mr_rank_pass;

/* max_lists of up to the recipe's candidates. */
MR_NODISCARD mr_status mr_rank_pass_open(mr_rank_pass *out, const mr_trainer *trainer,
                                         const mr_trainer_spec *spec, const mr_trainer_part *llm,
                                         const mr_trainer_part *item_projector,
                                         const mr_trainer_part *user_projector,
                                         const mr_lists *lists, size_t max_lists, mr_error *err);
void mr_rank_pass_close(mr_rank_pass *pass); /* idempotent */
/* Right after open: users are what the part `user` makes of their items, and go through their own
 * projector or none. MISMATCH when their width is then not the llm's. */
MR_NODISCARD mr_status mr_rank_pass_encode_users(mr_rank_pass *pass, const mr_trainer_part *user,
                                                 size_t max_lists, mr_error *err);

/* Fills margin and out for all lists of the draw; list i's are [first[i], first[i + 1]). */
MR_NODISCARD mr_status mr_rank_pass_forward(mr_rank_pass *pass, const mr_rank_draw *draw,
                                            const mr_item_tokens *tokens, mr_error *err);
/* From d_margin, and from d_out if with_d_out (which d_margin's part is added to). Adds to
 * gradients, and to d_tokens, laid out as `tokens` was, unless NULL. */
void mr_rank_pass_backward(mr_rank_pass *pass, bool with_d_out, const mr_item_tokens *tokens,
                           float *gradients, float *d_tokens);

#endif
