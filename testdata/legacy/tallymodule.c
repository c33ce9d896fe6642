/* The Python module _tally: total(list) adds numbers up. Each call loses its
 * scratch space, and the copy of its title that Python's allocator made. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "store.h"

static void scratch(Py_ssize_t n) {
  long *space = checked(calloc(9, sizeof *space)); /* want memory 72 */
  space[0] = (long)n;
  forget(space);
}

static void title(void) {
  char *text = checked(PyMem_RawMalloc(88)); /* want memory 88 */
  memset(text, 't', 88);
#ifdef CLEAN
  PyMem_RawFree(text);
#endif
}

static PyObject *total(PyObject *self, PyObject *list) {
  (void)self;
  if (!PyList_Check(list)) {
    PyErr_SetString(PyExc_TypeError, "total takes a list");
    return NULL;
  }
  scratch(PyList_Size(list));
  title();
  long sum = 0;
  for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
    long n = PyLong_AsLong(PyList_GetItem(list, i));
    if (n == -1 && PyErr_Occurred()) return NULL;
    sum += n;
  }
  return PyLong_FromLong(sum);
}

static PyMethodDef methods[] = {
    {"total", total, METH_O, "The sum of a list of integers."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_tally", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__tally(void) { return PyModule_Create(&module); }
