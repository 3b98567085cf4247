#include "ranker/model/tasks.h" /* moved there: training reads tasks too */
