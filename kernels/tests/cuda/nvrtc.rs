//! Machine code from CUDA C++ by NVRTC (docs.nvidia.com/cuda/nvrtc), which asks for neither driver nor device.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;

type Create = unsafe extern "C" fn(
    *mut *mut c_void,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut *mut c_void) -> c_int;

/// The library, which stays loaded.
pub struct Nvrtc(*mut c_void);

/// Machine code of one source for one architecture, and what the assembler said of it.
pub struct Cubin {
    pub bytes: Vec<u8>,
    pub log: String,
}

impl Nvrtc {
    /// Loads a file `libnvrtc.so.*`.
    pub fn load(path: &Path) -> Nvrtc {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no zero bytes");
        // SAFETY: a string; who set COTERIE_NVRTC wants that library's constructors to run.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        // SAFETY: after a failure the words are a string, until the next call.
        assert!(!library.is_null(), "NVRTC cannot be loaded: {:?}", unsafe {
            CStr::from_ptr(libc::dlerror())
        });
        Nvrtc(library)
    }

    /// Compiles a source, which may include the headers beside it. Fails with the compiler's log.
    pub fn compile(&self, source: &Path, architecture: &str) -> Result<Cubin, String> {
        let read =
            |path: &Path| CString::new(fs::read(path).expect("a source can be read")).expect("it is text");
        let text = read(source);
        let headers = super::sources::headers();
        let names =
            headers.iter().map(|path| path.file_name().expect("a header has a name").as_encoded_bytes());
        let names: Vec<CString> = names.map(|name| CString::new(name).expect("no zero bytes")).collect();
        let headers: Vec<CString> = headers.iter().map(|header| read(header)).collect();
        // Two kernels that must give the same bits must not be left to choose which products to fuse into additions.
        let fixed = ["--std=c++17", "--fmad=false", "--ptxas-options=--verbose"];
        let options = [&format!("--gpu-architecture={architecture}"), fixed[0], fixed[1], fixed[2]];
        let options = options.map(|option| CString::new(option).expect("no zero bytes"));
        let options = options.each_ref().map(|option| option.as_ptr());
        let mut program = std::ptr::null_mut();
        // SAFETY: the types are those of nvrtc.h; strings outlive the calls, the program is destroyed last.
        unsafe {
            let [headers, names] =
                [&headers, &names].map(|all| all.iter().map(|text| text.as_ptr()).collect::<Vec<_>>());
            let count = headers.len() as c_int;
            let create: Create = self.function(c"nvrtcCreateProgram");
            let (headers, names) = (headers.as_ptr(), names.as_ptr());
            let code = create(&mut program, text.as_ptr(), c"kernels.cu".as_ptr(), count, headers, names);
            assert_eq!(code, 0, "nvrtcCreateProgram");
            let compile: Compile = self.function(c"nvrtcCompileProgram");
            let code = compile(program, options.len() as c_int, options.as_ptr());
            let log = self.output(program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog");
            let log = String::from_utf8_lossy(&log).into_owned();
            let result = match code {
                0 => Ok(self.output(program, c"nvrtcGetCUBINSize", c"nvrtcGetCUBIN")),
                _ => Err(format!("{} for {architecture}:\n{log}", source.display())),
            };
            let destroy: Destroy = self.function(c"nvrtcDestroyProgram");
            destroy(&mut program);
            result.map(|bytes| Cubin { bytes, log })
        }
    }

    /// # Safety
    /// The program is there, and the functions are a size and what has that size.
    unsafe fn output(&self, program: *mut c_void, size: &CStr, get: &CStr) -> Vec<u8> {
        // SAFETY: the caller's; there is as much room as was asked for.
        unsafe {
            let mut length = 0;
            assert_eq!(self.function::<Size>(size)(program, &mut length), 0, "{size:?}");
            let mut bytes = vec![0u8; length];
            assert_eq!(self.function::<Get>(get)(program, bytes.as_mut_ptr().cast()), 0, "{get:?}");
            bytes
        }
    }

    /// # Safety
    /// `F` is the function's type.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> F {
        // SAFETY: a loaded library and a string.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!symbol.is_null(), "NVRTC has no {name:?}; it must be of CUDA 12 or later");
        // SAFETY: the caller's; functions are as large as pointers.
        unsafe { std::mem::transmute_copy(&symbol) }
    }
}
