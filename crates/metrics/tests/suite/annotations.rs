//! Annotation files of both formats.

use std::fs;

use zoo_core::BBox;
use zoo_metrics::coco::AnnotatedSet;

#[test]
fn coco_files_give_images_objects_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("instances.json");
    let text = r#"{
        "images": [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}, {"id": 3, "file_name": "b.jpg"}],
        "categories": [{"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 17, "bbox": [1, 2, 3.5, 4], "area": 9.5, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 17, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1}
        ]
    }"#;
    fs::write(&path, text).unwrap();
    let set = AnnotatedSet::from_coco(&path).unwrap();
    assert_eq!(set.categories.get(&17).unwrap(), "cat");
    let files: Vec<_> = set.images.iter().map(|image| (image.id, image.file.as_str())).collect();
    assert_eq!(files, [(7, "a.jpg"), (3, "b.jpg")]);
    assert!(set.images[0].objects.is_empty());
    let [plain, crowd] = set.images[1].objects.as_slice() else { panic!("{set:?}") };
    assert_eq!(plain.object.bbox, BBox::new(1.0, 2.0, 4.5, 6.0));
    assert_eq!((plain.area, plain.crowd, crowd.crowd), (Some(9.5), false, true));
    fs::write(&path, "[").unwrap();
    let error = AnnotatedSet::from_coco(&path).unwrap_err().to_string();
    assert!(error.starts_with("reading the ground truth from"), "{error}");
}

#[test]
fn voc_folders_do_likewise_and_count_pixels_from_0() {
    let folder = tempfile::tempdir().unwrap();
    let annotations = folder.path().join("Annotations");
    fs::create_dir(&annotations).unwrap();
    let error = AnnotatedSet::from_voc(folder.path()).unwrap_err().to_string();
    assert!(error.contains("there is no XML file"), "{error}");
    let object = |name: &str, difficult: u8| {
        format!(
            "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>11</ymin>\
             <xmax>10</xmax><ymax>20</ymax></bndbox></object>"
        )
    };
    let text = format!(
        "<annotation><filename>a.jpg</filename><size><width>50</width><height>40</height></size>{}{}</annotation>",
        object("dog", 0),
        object("aeroplane", 1)
    );
    fs::write(annotations.join("a.xml"), text).unwrap();
    let set = AnnotatedSet::from_voc(folder.path()).unwrap();
    let names: Vec<_> = set.categories.values().map(String::as_str).collect();
    assert_eq!(names, ["aeroplane", "dog"]);
    let [dog, plane] = set.images[0].objects.as_slice() else { panic!("{set:?}") };
    assert_eq!((set.images[0].file.as_str(), set.images[0].id), ("a.jpg", 1));
    assert_eq!(dog.object.bbox, BBox::new(0.0, 10.0, 10.0, 20.0));
    assert_eq!((dog.object.class_id, dog.crowd, plane.object.class_id, plane.crowd), (2, false, 1, true));
    fs::write(annotations.join("b.xml"), "<annotation><object></object></annotation>").unwrap();
    let error = AnnotatedSet::from_voc(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.xml"), "{error}");
}
