/* caption_data.h - pictures with texts: what the caption stage reads.
 *
 * Rows of JSONL: {"image": path relative to the file, "text", "prompt"?}. A row without a picture
 * is passed over and counted, so that a catalogue's items.jsonl serves as it is. A row becomes
 *
 *     before the picture | picture tokens | after it | text, end of sequence
 *
 * where before and after are the two sides of the marker "<image>" in the prompt; a row without a
 * prompt has the marker alone. The prompt is tokenised as encoders/llava.h does, special tokens and
 * the tokenizer's own first; the text is plain. What is longer than max_tokens loses the end of its
 * text.
 *
 * Of a frozen tower the tokens of every picture are computed at open, by serving's own encoder;
 * with one that is trained pictures are read again whenever they are drawn. Private to
 * ranker/training. Threads: read-only after open.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_CAPTION_DATA_H
#define MR_RANKER_TRAINING_CAPTION_DATA_H

#include "encoders/image.h"
#include "ranker/model/intern.h"
#include "ranker/training/trainer_private.h"

#define MR_CAPTION_MARKER "<image>"

typedef struct {
    size_t begin;                 /* in the ids */
    uint32_t before, after, text; /* ids; text with the end of sequence, at least 1 */
    uint32_t picture;
} mr_caption;

typedef struct {
    mr_ids ids;
    mr_caption *caption;
    size_t n, capacity;
    uint64_t passed_over; /* rows without a picture */
    size_t longest;       /* ids of a row, without the picture */
    char *folder;         /* that the paths start from */
    mr_intern pictures;   /* paths */
    size_t width;         /* numbers of a picture's tokens: tokens x C */
    float *features;      /* [pictures][width] of a frozen tower, else NULL */
    mr_image_target target;
} mr_captions;

MR_NODISCARD mr_status mr_captions_open(mr_captions *out, const mr_trainer *trainer, mr_error *err);
void mr_captions_close(mr_captions *captions); /* idempotent */

/* Reads and prepares a picture: pixels [3][image_size][image_size]. Any thread. */
MR_NODISCARD mr_status mr_captions_pixels(const mr_captions *captions, uint32_t picture,
                                          float *pixels, mr_error *err);

#endif
