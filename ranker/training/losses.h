/* losses.h - what training minimises: values and gradients with respect to scores and vectors.
 *
 * Each function returns the loss and writes the gradient of exactly that loss. Sums are in double
 * and in a fixed order, so a loss does not depend on threads. Inputs must be finite; lengths of 0
 * give a loss of 0. Margins are logit(yes) - logit(no), as everywhere.
 * Agreement with PyTorch: tests/unit/test_losses.c.
 * Threads: all functions may run at once on different data. Nothing is allocated.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_RANKER_TRAINING_LOSSES_H
#define MR_RANKER_TRAINING_LOSSES_H

#include <stddef.h>
#include <stdint.h>

/* A row of mr_loss_cross_entropy that counts for nothing: padding, a prompt that is not learned. */
#define MR_LOSS_IGNORE (-1)

/* Mean over the rows that count of -log softmax(logits)[target]: torch's cross_entropy with
 * ignore_index. logits and gradient: [n][classes], which may be the same memory. A target is below
 * classes or MR_LOSS_IGNORE. Next tokens; and InfoNCE, whose logits are similarities divided by the
 * temperature and whose targets are the columns of the pairs. */
double mr_loss_cross_entropy(const float *logits, const int32_t *target, size_t n, size_t classes,
                             float *gradient);

/* Mean of the binary cross-entropy of sigmoid(margin) against target, 0..1: labels yes and no, or a
 * teacher's probability (soft labels). torch's binary_cross_entropy_with_logits. */
double mr_loss_yes_no(const float *margin, const float *target, size_t n, float *gradient);

/* One list: cross-entropy of softmax(margins) against gains / sum(gains) (ListNet's top-one,
 * Cao et al. 2007). Gains at least 0; a list without any gain has nothing to learn from: 0. */
double mr_loss_listwise(const float *margin, const float *gain, size_t n, float *gradient);

/* One list: temperature^2 x KL(softmax(teacher / temperature) || softmax(student / temperature))
 * (Hinton et al. 2015: the square keeps the gradient's size). Gradient of the student. */
double mr_loss_distill(const float *student, const float *teacher, size_t n, double temperature,
                       float *gradient);

/* 1 - cosine of two vectors: the alignment of a student's state with its teacher's. The gradient is
 * of the student. A vector of length 0 has no direction: 1, and no gradient. */
double mr_loss_cosine(const float *student, const float *teacher, size_t dim, float *gradient);

#endif
