// The app. The preview shell and its workers are built apart (scripts/build.mjs): they must be one
// file without imports, since they run where no other file may be loaded.
import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    cssTarget: ["chrome123", "firefox121", "safari17.5"], // light-dark() stays as it is written
    // no data: fonts or scripts under the strict policy
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  worker: { format: "es" },
  server: { proxy: { "/api": "http://127.0.0.1:8000", "/preview": "http://127.0.0.1:8000", "/pyodide": "http://127.0.0.1:8000" } },
});
