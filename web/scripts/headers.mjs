// The headers that keep the app safe, written to dist/headers.json for the server to send. The key
// is a path, one that ends in * a prefix; the first that fits holds. {origin} is scheme, host and
// port as the browser sees them: in the preview's opaque origin 'self' would name nothing.

const common = {
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Opener-Policy": "same-origin",
};

const app = [
  "default-src 'self'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "font-src 'self'",
  "connect-src 'self'",
  "worker-src 'self'",
  "frame-src 'self'",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types rorqual dompurify",
].join("; ");

const preview = [
  "sandbox allow-scripts",
  "default-src 'none'",
  "script-src 'unsafe-inline' 'wasm-unsafe-eval' blob: {origin}/pyodide/",
  "style-src 'unsafe-inline'",
  "img-src data: blob:",
  "connect-src {origin}/pyodide/",
  "worker-src blob:",
  "form-action 'none'",
  "base-uri 'none'",
  "frame-ancestors 'self'",
].join("; ");

export const HEADERS = {
  "/preview": { ...common, "Content-Security-Policy": preview, "Cache-Control": "no-cache" },
  "/pyodide/*": {
    ...common,
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=604800",
  },
  "/assets/*": { ...common, "Cache-Control": "public, max-age=31536000, immutable" },
  "/*": { ...common, "Content-Security-Policy": app, "Permissions-Policy": "camera=(), microphone=(), geolocation=()", "Cache-Control": "no-cache" },
};
