/* trainer_private.h - what the loop, the parts and the stages share. Private to ranker/training.
 *
 * A stage knows its data, its batches and its losses; the loop knows none of them. Per micro-batch
 * the loop calls forward of every shard (one thread each), join, and backward of every shard. What
 * a stage draws depends on the batch's number and the seed alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_TRAINER_PRIVATE_H
#define MR_RANKER_TRAINING_TRAINER_PRIVATE_H

#include "core/json.h"
#include "core/threads.h"
#include "encoders/history.h"
#include "encoders/template.h"
#include "engine/tokenizer.h"
#include "ranker/training/decoder.h"
#include "ranker/training/optimizer.h"
#include "ranker/training/projector_train.h"
#include "ranker/training/trainer.h"
#include "ranker/training/user_encoder.h"
#include "ranker/training/vision.h"
#include "ranker/training/weights.h"

/* A part as the trainer holds it: layout when it is there. */
typedef struct {
    const mr_recipe_part *recipe; /* NULL: the recipe has no such part */
    const mr_weights_part *part;  /* NULL for an identity, which has no weights */
    mr_decoder_layout decoder;    /* llm, encoder, teacher */
    int file_layers;              /* of a decoder: those that come from a file */
    mr_projector_layout projector;
    mr_user_layout user;
    mr_vision_layout vision;
} mr_trainer_part;

/* What of bundle.json training reads. Templates are owned, JSON is borrowed from root. */
typedef struct {
    json_t *root; /* owned */
    mr_template *prefix, *suffix, *item_text;
    bool mixed;
    int32_t yes, no;
    int item_tokens, item_max_tokens;
    bool item_append_eos;
    int user_tokens;
    mr_history_order user_order;
    int max_length;
} mr_trainer_spec;

/* Numbers of one shard's pass; losses are weighted and already divided by the batch. */
typedef struct {
    double loss;
    uint64_t tokens;
} mr_shard_report;

typedef struct mr_trainer mr_trainer;

/* Which micro-batch: of training, counted from 0 over the whole run; or of the valid split. */
typedef struct {
    uint64_t number;
    bool valid;
    double second_phase; /* 1 where weight_late holds, else 0 */
} mr_batch_place;

typedef struct {
    /* Reads data and makes *state; the parts stand. *examples: size of the data set, for epochs. */
    mr_status (*open)(mr_trainer *trainer, void **state, uint64_t *examples, mr_error *err);
    void (*close)(void *state); /* NULL is fine */
    mr_status (*forward)(void *state, size_t shard, const mr_batch_place *place, mr_error *err);
    /* Between the two, on one thread, for losses that need all shards; or NULL. */
    mr_status (*join)(void *state, const mr_batch_place *place, mr_error *err);
    /* gradients NULL: the loss alone. */
    mr_status (*backward)(void *state, size_t shard, const mr_batch_place *place, float *gradients,
                          mr_shard_report *report, mr_error *err);
    /* Micro-batches of the valid split; 0: there is none. */
    size_t (*valid_batches)(void *state);
} mr_stage;

extern const mr_stage mr_stage_next_token;
extern const mr_stage mr_stage_contrastive;
extern const mr_stage mr_stage_rank;
extern const mr_stage mr_stage_user;
extern const mr_stage mr_stage_caption;

struct mr_trainer {
    const mr_recipe *recipe;
    const mr_train_options *opt;
    mr_pool *pool;
    const mr_ops_f32 *ops;
    mr_arena arena; /* strings */
    mr_weights weights;
    float *values, *moment1, *moment2; /* [weights.total] */
    size_t n_shards;
    float **gradient; /* [n_shards][weights.total] */
    mr_parameter *parameter;
    size_t n_parameters;

    const char *tokenizer_folder;
    mr_tokenizer *tokenizer;
    mr_trainer_spec spec; /* root NULL: the recipe names no bundle */
    mr_trainer_part llm, encoder, teacher, item_projector, user_projector, teacher_projector;
    mr_trainer_part user, vision, image_projector;
    uint64_t passed_over; /* rows of the data that the stage could not use, set by its open */
};

/* trainer_parts.c */
MR_NODISCARD mr_status mr_trainer_open_parts(mr_trainer *trainer, mr_error *err);
void mr_trainer_close_parts(mr_trainer *trainer);
/* INVALID, naming the stage, when a part that it needs is not in the recipe. */
MR_NODISCARD mr_status mr_trainer_need(const mr_trainer *trainer, const mr_trainer_part *part,
                                       const char *name, mr_error *err);
/* Whether some weight of the part is trained. */
bool mr_trainer_trains(const mr_trainer *trainer, const mr_trainer_part *part);
/* Writes all trained or new parts in Hugging Face layout into a folder: but for a frozen vision
 * tower, which is where it came from. */
MR_NODISCARD mr_status mr_trainer_save_parts(const mr_trainer *trainer, const char *folder,
                                             mr_error *err);

/* trainer_modules.c: the user encoder and the vision tower. */
MR_NODISCARD mr_status mr_trainer_add_user(mr_trainer *trainer, mr_trainer_part *out,
                                           mr_error *err);
MR_NODISCARD mr_status mr_trainer_add_vision(mr_trainer *trainer, mr_trainer_part *out,
                                             mr_error *err);
MR_NODISCARD mr_status mr_trainer_save_user(const mr_trainer *trainer, const char *folder,
                                            mr_arena *arena, mr_error *err);
MR_NODISCARD mr_status mr_trainer_save_vision(const mr_trainer *trainer, const char *folder,
                                              mr_arena *arena, mr_error *err);
/* Most items that stand for a user: the recipe's, cut to what will be served. */
size_t mr_trainer_history(const mr_trainer *trainer);

/* trainer_spec.c */
MR_NODISCARD mr_status mr_trainer_spec_open(mr_trainer_spec *out, const char *path,
                                            const mr_tokenizer *tokenizer, mr_error *err);
void mr_trainer_spec_close(mr_trainer_spec *spec);

/* checkpoint.c */
typedef struct {
    int64_t step;
    double smooth_loss;
    uint64_t tokens;
    double valid_loss;
} mr_checkpoint_state;
/* Writes out/checkpoint-<step>, then removes older ones beyond recipe->checkpoint.keep. */
MR_NODISCARD mr_status mr_checkpoint_write(const mr_trainer *trainer,
                                           const mr_checkpoint_state *state, mr_error *err);
/* Loads the newest whole one; state->step is 0 when there is none. MISMATCH under another recipe.
 */
MR_NODISCARD mr_status mr_checkpoint_resume(mr_trainer *trainer, mr_checkpoint_state *state,
                                            mr_error *err);
/* Puts the newest checkpoint's parts at their final place in out/, and removes all checkpoints but
 * those to keep. */
MR_NODISCARD mr_status mr_checkpoint_publish(const mr_trainer *trainer, mr_error *err);

/* A permutation of 0..n-1 that depends on seed and epoch alone: which example is number i. */
uint64_t mr_shuffle_at(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i);

#endif
