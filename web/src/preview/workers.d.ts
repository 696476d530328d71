// Made by scripts/build.mjs: the two workers' source text.
declare module "virtual:preview-workers" {
  export const canvasWorker: string;
  export const pythonWorker: string;
}
