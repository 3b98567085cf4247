/* remove_tree.h - removes a file, or a folder with all that is in it; links are not followed.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_REMOVE_TREE_H
#define MR_TESTS_REMOVE_TREE_H

/* parent: a folder's descriptor, or AT_FDCWD. What cannot be removed stays. */
void test_remove_tree(int parent, const char *name);

#endif
